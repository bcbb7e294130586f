//! `GET /assignments` and `POST /update`.

use serde_json::{Value, json};

use super::{
    DAY, STATUSES, any_drivers, any_packages, assign, driver, encoded, expect_plan, holders,
    listed, lists, names, package, pointers, prepared, put_manifest, update, wanted,
};
use crate::client::{get, post};
use crate::packages::with;
use crate::shop::{Shop, text};

#[tokio::test]
async fn any_status_may_follow_any_other_unless_it_is_strict() {
    for strict in [false, true] {
        let shop = Shop::open(&[("assignments.strict", &strict.to_string())]).await;
        let day = lists(&any_drivers(1), &any_packages(1));
        shop.staff.ask(put_manifest(&day)).await.expect(200);
        let plan = assign(&wanted(&["d-00"], 1));
        shop.staff.ask(plan).await.expect(200);
        for status in ["in_progress", "accepted", "delivered", "delivered"] {
            let item = shop.staff.ask(update("d-00", "p-000", status)).await;
            assert_eq!(item.expect(200)["status"], status);
        }
        let answer = shop.staff.ask(update("d-00", "p-000", "assigned")).await;
        let stored = &listed(&shop, "").await[0]["status"];
        if strict {
            let problem = answer.expect_problem(409, "status-final");
            assert_eq!(problem["current_status"], "delivered");
            assert_eq!(stored, "delivered");
        } else {
            assert_eq!(&answer.expect(200)["status"], stored);
            assert_eq!(stored, "assigned");
        }
        shop.close().await;
    }
}

#[tokio::test]
async fn an_update_that_makes_no_sense_is_told_the_known_statuses() {
    let shop = prepared(&lists(&any_drivers(1), &any_packages(1))).await;
    let plan = assign(&wanted(&["d-00"], 1));
    shop.staff.ask(plan).await.expect(200);
    let answer = shop.staff.ask(update("d-00", "p-000", "Delivered")).await;
    assert_eq!(pointers(&answer), ["/status"], "{answer}");
    let detail = text(&answer.json()["detail"]);
    for known in STATUSES {
        assert!(detail.contains(known), "{known} is missing: {detail}");
    }
    let valid = json!({"driver_id": "d-00", "package_id": "p-000", "status": "accepted"});
    for field in ["driver_id", "package_id", "status"] {
        let mut missing = valid.clone();
        missing.as_object_mut().unwrap().remove(field);
        for wrong in [with(&valid, field, 1.5), missing] {
            let answer = shop.staff.ask(post("/update").json(&wrong)).await;
            assert_eq!(pointers(&answer), [format!("/{field}")], "{answer}");
        }
    }
    assert_eq!(listed(&shop, "").await[0]["status"], "assigned");
    shop.close().await;
}

#[tokio::test]
async fn a_list_shows_what_fits_all_that_is_said_page_by_page() {
    let shop = Shop::open(&[]).await;
    let day = lists(&any_drivers(3), &any_packages(9));
    for date in [DAY, "2142-05-02"] {
        let day = with(&day, "date", date);
        shop.staff.ask(put_manifest(&day)).await.expect(200);
        let plan = with(&wanted(&names(&day, "drivers"), 3), "date", date);
        shop.staff.ask(assign(&plan)).await.expect(200);
    }
    // An update is of the latest day on which the driver got the package.
    let one = &listed(&shop, "date=2142-05-02").await[4];
    let [driver, package] = ["driver_id", "package_id"].map(|id| text(&one[id]));
    let begun = update(&driver, &package, "in_progress");
    let begun = shop.staff.ask(begun).await.expect(200);
    let all = listed(&shop, "limit=1000").await;
    assert_eq!(all.len(), 18);
    let fields = ["driver_id", "package_id", "status", "date"];
    for chosen in 0..16_usize {
        let chosen = (0..4).filter(|bit| chosen >> bit & 1 == 1);
        let chosen: Vec<_> = chosen.map(|bit| fields[bit]).collect();
        let fits = |item: &&Value| chosen.iter().all(|field| item[*field] == begun[*field]);
        let expected: Vec<_> = all.iter().filter(fits).cloned().collect();
        let query = chosen
            .iter()
            .map(|field| format!("{field}={}&", text(&begun[*field])));
        let query: String = query.collect();
        let found = listed(&shop, &format!("{query}limit=2")).await;
        assert_eq!(found, expected, "{query}");
    }
    let page = shop.staff.ask(get("/assignments?limit=18")).await;
    assert_eq!(page.expect(200).get("next"), None);
    assert_eq!(page.header("cache-control"), Some("no-store"));
    for unknown in ["driver_id=zoe", "package_id=", "driver_id=%00"] {
        let found = listed(&shop, unknown).await;
        assert_eq!(found, Vec::<Value>::new(), "{unknown}");
    }
    shop.close().await;
}

#[tokio::test]
async fn a_list_that_cannot_be_is_told_the_parameter() {
    let shop = Shop::open(&[]).await;
    for (parameter, value) in [
        ("status", "lost"),
        ("date", "2142-13-01"),
        ("limit", "0"),
        ("limit", "1001"),
        ("limit", "many"),
        ("cursor", ""),
        ("cursor", "WyJhIl0"),
    ] {
        let list = get(format!("/assignments?{parameter}={value}"));
        let answer = shop.staff.ask(list).await;
        let problem = answer.expect_problem(422, "invalid");
        assert_eq!(problem["errors"][0]["parameter"], parameter, "{answer}");
        let detail = text(&problem["detail"]);
        let names_all = STATUSES.iter().all(|known| detail.contains(known));
        assert!(parameter != "status" || names_all, "{detail}");
    }
    shop.close().await;
}

#[tokio::test]
async fn drivers_and_packages_of_any_name_are_found() {
    let long = "ü".repeat(128);
    let odd = [
        "Zoë 7", " a", "a", "A", "a?b&c=d", "a+b", "a%2Fb", "\"'\\", "..", "#", "🚚", &long,
    ];
    let drivers: Vec<_> = odd.iter().map(|name| driver(name, &[])).collect();
    let packages: Vec<_> = odd.iter().map(|name| package(name)).collect();
    let day = lists(&drivers, &packages);
    let shop = prepared(&day).await;
    let wanted = wanted(&odd, 1);
    let answer = shop.staff.ask(assign(&wanted)).await;
    for (name, packages) in expect_plan(&day, &wanted, &answer) {
        let [id] = &packages[..] else {
            panic!("{name} has {packages:?}")
        };
        let item = shop.staff.ask(update(&name, id, "delivered")).await;
        let item = item.expect(200);
        for (field, value) in [("driver_id", &name), ("package_id", id)] {
            let found = listed(&shop, &format!("{field}={}", encoded(value))).await;
            assert_eq!(found, std::slice::from_ref(&item), "{field}={value}");
        }
    }
    let paged = listed(&shop, "limit=1&status=delivered").await;
    assert_eq!(holders(&paged).len(), odd.len());
    shop.close().await;
}
