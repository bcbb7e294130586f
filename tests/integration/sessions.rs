//! Sessions of browsers at a locked shop, without a browser; `login` has what a person sees.

use serde_json::json;
use testkit::found;

use crate::access::shop_of_bo;
use crate::client::{Ask, get, post};

fn log_in(body: String) -> Ask {
    let form = "application/x-www-form-urlencoded";
    post("/login").header("Content-Type", form).body(body)
}

#[tokio::test]
async fn a_protected_page_leads_to_the_form_and_a_token_back_to_the_page_with_a_session() {
    let (_tokens, token, shop) = shop_of_bo().await;
    let door = shop.staff.without_token();
    let page = get("/orders/0191d5c8-7a9b-7000-8000-000000000000?x").header("Accept", "text/html");
    let sent = door.ask(page).await;
    assert_eq!(sent.status, 303, "{sent}");
    let form = sent.header("location").unwrap().to_owned();
    let shown = door.ask(get(&form)).await;
    assert!(
        shown
            .text()
            .contains("value=\"/orders/0191d5c8-7a9b-7000-8000-000000000000?x\""),
        "{shown}"
    );
    let wrong = log_in("token=wrong".to_owned()).header("Accept", "text/html");
    let wrong = door.ask(wrong).await;
    assert_eq!(wrong.status, 401, "{wrong}");
    assert!(
        wrong.text().contains("malformed, unknown or revoked"),
        "{wrong}"
    );
    door.ask(post("/login").json(&json!({"token": token})))
        .await
        .expect_problem(415, "not-a-form");
    for next in [
        "//evil.example",
        "https://evil.example/",
        "%2F%2Fevil.example",
    ] {
        let answer = door.ask(log_in(format!("token={token}&next={next}"))).await;
        assert_eq!(answer.header("location"), Some("/"), "{next}: {answer}");
    }
    let answer = door.ask(log_in(format!("token={token}&next=/docs"))).await;
    assert_eq!(
        (answer.status, answer.header("location")),
        (303, Some("/docs")),
        "{answer}"
    );
    let cookie = answer.header("set-cookie").unwrap();
    for attribute in ["HttpOnly", "SameSite=Strict", "Path=/", "Max-Age=43200"] {
        assert!(cookie.contains(attribute), "{cookie}");
    }
    assert!(
        !cookie.contains("Secure") && !cookie.contains(&token[17..]),
        "{cookie}"
    );
    let behind_tls = log_in(format!("token={token}")).header("X-Forwarded-Proto", "https");
    let behind_tls = door.ask(behind_tls).await;
    assert!(
        behind_tls
            .header("set-cookie")
            .unwrap()
            .contains("; Secure"),
        "{behind_tls}"
    );
    shop.close().await;
}

#[tokio::test]
async fn a_browser_s_session_reads_and_changes_only_from_a_page_of_the_listener_until_it_is_over() {
    let (tokens, token, shop) = shop_of_bo().await;
    let door = shop.staff.without_token();
    let answer = door.ask(log_in(format!("token={token}"))).await;
    let cookie = answer.header("set-cookie").unwrap();
    let session = cookie.split(';').next().unwrap().to_owned();
    let with = |ask: Ask| ask.header("Cookie", format!("a=b; {session}"));
    // Reading needs no proof, changing does; `GET /start/` changes.
    let look = || with(get("/orders/0191d5c8-7a9b-7000-8000-000000000000"));
    door.ask(look()).await.expect_problem(404, "order-unknown");
    for ask in [
        post("/start/?wait=0"),
        get("/start/?wait=0"),
        post("/finish/"),
    ] {
        door.ask(with(ask)).await.expect_problem(403, "cross-site");
    }
    let origin = format!("http://{}", door.address);
    door.ask(with(post("/start/?wait=0")).header("Origin", &*origin))
        .await
        .expect(204);
    door.ask(with(post("/start/?wait=0")).header("Sec-Fetch-Site", "same-origin"))
        .await
        .expect(204);
    door.ask(with(post("/start/?wait=0")).header("Origin", "http://evil.example"))
        .await
        .expect_problem(403, "cross-site");
    let elsewhere = with(get("/flood"));
    door.ask(elsewhere)
        .await
        .expect_problem(403, "role-missing");
    // It is no credential at the customers' listener.
    shop.customers
        .ask(with(get("/statistics")))
        .await
        .expect_problem(401, "credential-missing");
    let out = door.ask(with(get("/logout"))).await;
    assert!(
        out.header("set-cookie")
            .unwrap()
            .contains("odyssey_session=; "),
        "{out}"
    );
    assert!(tokens.run(&["revoke", "--name", "bo"]).status.success());
    found("the session ends with its token", async || {
        (door.ask(look()).await.status == 401).then_some(())
    })
    .await;
    shop.close().await;
}
