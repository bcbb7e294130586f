//! What a customer says about an order, and what its barista says about the coffee.

use serde_json::{Value, json};

use crate::client::{get, order, post};
use crate::shop::Shop;

/// As long as `orders.details_max_bytes` allows: quotation marks and 16,382 characters.
fn longest() -> Value {
    json!("x".repeat(16_382))
}

#[tokio::test]
async fn details_reach_the_barista_and_a_result_reaches_everybody_who_asks_for_the_order() {
    let shop = Shop::open(&[]).await;
    let details = json!({"milk": "oat", "notes": ["hot", "\u{1f980} \"to go\""], "sugar": 2.5});
    let keyed = order()
        .key("details-and-result")
        .json(&json!({"customer": "Ada", "details": details}));
    let first = shop.customer(keyed.clone()).await;
    let second = shop.customer(keyed.clone()).await;

    let started = shop.staff.ask(post("/start/?wait=0")).await.expect(200);
    assert_eq!(started["details"], details, "{started}");
    let id = started["order_id"].as_str().unwrap().to_owned();
    let waiting = shop
        .customers
        .ask(get(format!("/orders/{id}")))
        .await
        .expect(200);
    assert_eq!(
        (waiting.get("details"), waiting.get("result")),
        (None, None)
    );

    let result = json!([{"cup": 7}, null]);
    let finish = post(format!("/finish/?order_id={id}")).json(&json!({"result": result}));
    shop.staff.ask(finish).await.expect(200);
    for held in [first, second] {
        assert_eq!(held.answer().await.expect(200)["result"], result);
    }
    // The first report counts, with its result.
    let other = post(format!("/finish/?order_id={id}")).json(&json!({"result": "another"}));
    assert_eq!(shop.staff.ask(other).await.expect(200)["already"], true);
    for later in [keyed, get(format!("/orders/{id}"))] {
        assert_eq!(
            shop.customers.ask(later).await.expect(200)["result"],
            result
        );
    }
    shop.close().await;
}

#[tokio::test]
async fn the_next_order_of_a_finish_has_its_details_and_null_is_none() {
    let shop = Shop::open(&[]).await;
    let plain = shop.customer(order().json(&json!({"details": null}))).await;
    let detailed = shop.customer(order().json(&json!({"details": 0}))).await;
    let started = shop.staff.ask(post("/start/?wait=0")).await.expect(200);
    assert_eq!(started.get("details"), None, "{started}");
    let id = started["order_id"].as_str().unwrap();
    let finish = post(format!("/finish/?order_id={id}&next=0")).json(&json!({"result": null}));
    let answer = shop.staff.ask(finish).await.expect(200);
    assert_eq!(answer["next"]["details"], json!(0), "{answer}");
    assert_eq!(plain.answer().await.expect(200).get("result"), None);
    shop.finish(answer["next"]["order_id"].as_str().unwrap())
        .await;
    detailed.answer().await.expect(200);
    shop.close().await;
}

#[tokio::test]
async fn details_and_results_are_bounded_and_a_refused_report_changes_nothing() {
    let shop = Shop::open(&[]).await;
    let too_long = json!("x".repeat(16_383));
    let answer = shop
        .customers
        .ask(order().json(&json!({"details": too_long})))
        .await;
    let problem = answer.expect_problem(422, "invalid");
    assert_eq!(problem["errors"][0]["pointer"], "/details", "{problem}");

    let customer = shop
        .customer(order().json(&json!({"details": longest()})))
        .await;
    let started = shop.staff.ask(post("/start/?wait=0")).await.expect(200);
    assert_eq!(started["details"], longest());
    let finish = post(format!(
        "/finish/?order_id={}",
        started["order_id"].as_str().unwrap()
    ));
    let answer = shop
        .staff
        .ask(finish.clone().json(&json!({"result": too_long})))
        .await;
    let problem = answer.expect_problem(422, "invalid");
    assert_eq!(problem["errors"][0]["pointer"], "/result", "{problem}");
    for (body, status, name) in [("[]", 422, "invalid"), ("{", 400, "unreadable")] {
        shop.staff
            .ask(finish.clone().body(body))
            .await
            .expect_problem(status, name);
    }
    assert!(customer.is_held());
    shop.staff
        .ask(finish.json(&json!({"result": longest()})))
        .await
        .expect(200);
    assert_eq!(customer.answer().await.expect(200)["result"], longest());
    shop.close().await;
}

#[tokio::test]
async fn a_key_with_other_details_is_refused_and_with_the_same_it_is_the_same_order() {
    let shop = Shop::open(&[("orders.details_max_bytes", "0")]).await;
    let refused = shop
        .customers
        .ask(order().json(&json!({"details": 1})))
        .await;
    refused.expect_problem(422, "invalid");
    shop.close().await;

    let shop = Shop::open(&[]).await;
    let with = |details: &str| {
        order()
            .key("a-key-of-details")
            .body(format!("{{\"details\": {details}}}"))
    };
    let first = shop.customer(with(r#"{"a": 1, "b": [2.0]}"#)).await;
    // Of the value, not of the text.
    let second = shop.customer(with(r#"{"b":[2],"a":1}"#)).await;
    let other = shop.customers.ask(with(r#"{"a": 1}"#)).await;
    other.expect_problem(422, "idempotency-key-reused");
    assert_eq!(shop.serve_all().await.len(), 1);
    for held in [first, second] {
        held.answer().await.expect(200);
    }
    shop.close().await;
}
