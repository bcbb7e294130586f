//! The line as event streams: a held order, an order that is watched, the board, and the staff's line. Also what only screens
//! need: pick-up numbers, and closing the line.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};
use testkit::until;

use crate::client::{Ask, Events, delete, get, order, post, put, within};
use crate::durability::Seed;
use crate::shop::{Shop, Started};

/// An order whose request is held as a stream.
async fn streamed(shop: &Shop, ask: Ask) -> Events {
    shop.customers.events(ask).await
}

/// Of an order that waits in a stream.
fn id_of(state: &Value) -> String {
    state["order_id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_streamed_order_is_held_and_shows_its_way_to_the_counter() {
    let shop = Shop::open(&[]).await;
    let first = shop.promised().await;
    let named = order().json(&json!({"customer": "Ada"}));
    let mut stream = streamed(&shop, named).await;
    let waiting = stream.expect("waiting").await;
    assert_eq!(
        (&waiting["position"], &waiting["customer"]),
        (&json!(2), &json!("Ada"))
    );
    assert_eq!(waiting["number"], "A01");
    shop.until("its request is held", |now| now.held() == 1)
        .await;
    // It moves up.
    assert_eq!(shop.start().await.id, first);
    assert_eq!(stream.expect("waiting").await["position"], 1);
    let started = Started::of(&shop.pull("wait=0&barista=Bo").await.expect(200));
    let brewing = stream.expect("brewing").await;
    assert_eq!(
        (&brewing["barista"], &brewing["order_id"]),
        (&json!("Bo"), &json!(started.id))
    );
    assert_eq!(brewing["position"], Value::Null);
    shop.try_finish(&started.id, "").await.expect(200);
    let ready = stream.expect("ready").await;
    assert_eq!(
        (&ready["status"], &ready["number"]),
        (&json!("ready"), &json!("A01"))
    );
    stream.expect_end().await;
    shop.until("it is not held any more", |now| now.held() == 0)
        .await;
    shop.finish(&first).await;
    drop(stream);
    shop.close().await;
}

#[tokio::test]
async fn a_streamed_order_that_is_refused_is_a_problem_and_one_that_ends_otherwise_an_event() {
    let shop = Shop::open(&[("orders.lease", "1s")]).await;
    let mut stream = streamed(&shop, order()).await;
    let id = id_of(&stream.expect("waiting").await);
    shop.start().await;
    stream.expect("brewing").await;
    // The barista is gone: it is back in line, which is no error.
    let back = stream.expect("waiting").await;
    assert_eq!(
        (&back["position"], &back["attempts"]),
        (&json!(1), &json!(1))
    );
    shop.customers
        .expect(delete(format!("/orders/{id}")), 200)
        .await;
    let cancelled = stream.expect("cancelled").await;
    assert_eq!(cancelled["type"], "urn:odyssey:problem:order-cancelled");
    assert_eq!(cancelled["status"], 409);
    stream.expect_end().await;
    let keyed = order().key("a-key-of-some-length");
    let held = shop.customer(keyed.clone()).await;
    let events = ("accept", "text/event-stream");
    let other = keyed
        .clone()
        .json(&json!({"customer": "Bob"}))
        .header(events.0, events.1);
    shop.customers
        .expect_problem(other, 422, "idempotency-key-reused")
        .await;
    shop.serve_all().await;
    held.answer().await.expect(200);
    // Its answer is replayed.
    let mut again = streamed(&shop, keyed).await;
    assert_eq!(again.expect("ready").await["status"], "ready");
    again.expect_end().await;
    drop((stream, again));
    shop.close().await;
}

#[tokio::test]
async fn who_drops_a_stream_leaves_as_who_drops_a_held_request_does() {
    let shop = Shop::open(&[("orders.reconnect_grace", "1s")]).await;
    let keep = |key: &str, keep: &str| order().key(format!("customer-with-key-{key}")).prefer(keep);
    let mut streams = Vec::new();
    for ask in [
        order(),
        keep("1", "handling=lenient"),
        keep("2", "keep=900"),
    ] {
        let mut stream = streamed(&shop, ask).await;
        stream.expect("waiting").await;
        streams.push(stream);
    }
    drop(streams.remove(0));
    shop.until("who has no key has left", |now| now.waiting() == 2)
        .await;
    drop(streams);
    shop.until("who has a key stays for the grace", |now| {
        now.waiting() == 1
    })
    .await;
    // Who asked for more has the place still, and comes back to it.
    let mut again = streamed(&shop, keep("2", "keep=900")).await;
    assert_eq!(again.expect("waiting").await["position"], 1);
    shop.serve_all().await;
    again.until(|state| state["status"] == "ready").await;
    drop(again);
    shop.close().await;
}

#[tokio::test]
async fn a_place_is_kept_no_longer_than_the_staff_allow() {
    let shop = Shop::open(&[("orders.keep_max", "1s"), ("orders.reconnect_grace", "1h")]).await;
    let ask = order().key("customer-with-a-key").prefer("keep=900");
    let mut stream = streamed(&shop, ask).await;
    stream.expect("waiting").await;
    drop(stream);
    shop.until("the time is over", |now| now.waiting() == 0)
        .await;
    shop.close().await;
}

#[tokio::test]
async fn watchers_do_not_hold_up_the_end_of_the_server() {
    let shop = Shop::open(&[]).await;
    let id = shop.promised().await;
    let mut watchers = Vec::new();
    for _ in 0..5 {
        let mut watcher = shop.customers.events(get(format!("/orders/{id}"))).await;
        watcher.expect("waiting").await;
        watchers.push(watcher);
        let mut board = shop.customers.events(get("/board")).await;
        board.expect("board").await;
        watchers.push(board);
        let mut line = shop.staff.events(get("/line")).await;
        line.expect("line").await;
        watchers.push(line);
    }
    assert_eq!(shop.metrics().await.held(), 0);
    shop.signal(Signal::TERM);
    for mut watcher in watchers {
        watcher.expect("stopping").await;
        watcher.expect_end().await;
    }
    shop.ended_well().await;
}

#[tokio::test]
async fn who_watches_an_order_sees_its_end_or_that_it_is_gone() {
    let shop = Shop::open(&[]).await;
    let watch = |id: &str| shop.customers.events(get(format!("/orders/{id}")));
    let held = shop.customer(order()).await;
    let line = shop.staff.expect(get("/line"), 200).await;
    let id = line["next"][0]["order_id"].as_str().unwrap().to_owned();
    let mut watcher = watch(&id).await;
    watcher.expect("waiting").await;
    held.leave().await;
    let gone = watcher.expect("gone").await;
    assert_eq!(gone["type"], "urn:odyssey:problem:order-unknown");
    watcher.expect_end().await;
    drop(watcher);
    shop.customers
        .expect_problem(
            get(format!("/orders/{id}")).header("accept", "text/event-stream"),
            404,
            "order-unknown",
        )
        .await;
    let id = shop.promised().await;
    let mut watcher = watch(&id).await;
    watcher.expect("waiting").await;
    shop.start().await;
    watcher.expect("brewing").await;
    shop.finish(&id).await;
    watcher.expect("ready").await;
    watcher.expect_end().await;
    // A final order is its end at once.
    watch(&id).await.expect("ready").await;
    drop(watcher);
    shop.close().await;
}

#[tokio::test]
async fn the_board_shows_numbers_and_names_only_if_the_staff_want_that() {
    for (kind, name) in [("numbers", Value::Null), ("names", json!("Ada L."))] {
        let shop = Shop::open(&[("pages.board", kind)]).await;
        let mut board = shop.customers.events(get("/board")).await;
        let empty = board.expect("board").await;
        assert_eq!(
            (&empty["waiting"], &empty["crew"]),
            (&json!(0), &json!("away"))
        );
        let ada = shop
            .customer(order().json(&json!({"customer": "Ada Lovelace"})))
            .await;
        let bob = shop.customer(order()).await;
        let next = board.until(|board| board["waiting"] == 2).await;
        assert_eq!(next["next"], json!([{"number": "A00"}, {"number": "A01"}]));
        let started = shop.start().await;
        board
            .until(|board| board["making"] == json!([{"number": "A00"}]))
            .await;
        shop.finish(&started.id).await;
        ada.answer().await.expect(200);
        let ready = board
            .until(|board| board["ready"][0]["number"] == "A00")
            .await;
        assert_eq!(ready["ready"][0]["name"], name);
        assert_eq!(ready["making"], json!([]));
        // The same as JSON.
        let json = shop.customers.expect(get("/board"), 200).await;
        assert_eq!(
            (&json["ready"][0]["name"], &json["waiting"]),
            (&name, &json!(1))
        );
        bob.leave().await;
        drop(board);
        shop.close().await;
    }
    let shop = Shop::open(&[("pages.board", "off")]).await;
    shop.customers
        .expect_problem(get("/board"), 404, "no-board")
        .await;
    shop.close().await;
}

#[tokio::test]
async fn a_ready_order_leaves_the_board_after_its_time() {
    let shop = Shop::open(&[("pages.ready_for", "1s")]).await;
    let id = shop.promised().await;
    shop.start().await;
    shop.finish(&id).await;
    until("its number is gone", async || {
        let board = shop.customers.expect(get("/board"), 200).await;
        board["ready"] == json!([])
    })
    .await;
    shop.close().await;
}

#[tokio::test]
async fn the_staff_see_who_is_next_who_works_and_what_was_ready_last() {
    let shop = Shop::open(&[]).await;
    let mut line = shop.staff.events(get("/line")).await;
    line.expect("line").await;
    for customer in ["Ada", "Bob", "Cid"] {
        let ask = order().json(&json!({"customer": customer, "details": {"milk": true}}));
        shop.customers
            .expect(ask.prefer("respond-async"), 202)
            .await;
    }
    let bo = Started::of(&shop.pull("wait=0&barista=Bo").await.expect(200));
    let di = Started::of(&shop.pull("wait=0&barista=Di").await.expect(200));
    let now = line
        .until(|line| line["cups"].as_array().unwrap().len() == 2)
        .await;
    assert_eq!((&now["waiting"], &now["brewing"]), (&json!(1), &json!(2)));
    assert_eq!(now["next"][0]["customer"], "Cid");
    assert_eq!(now["next"][0]["details"], Value::Null);
    let cup = &now["cups"][0];
    assert_eq!(
        (
            &cup["order_id"],
            &cup["barista"],
            &cup["attempt"],
            &cup["details"]
        ),
        (
            &json!(bo.id),
            &json!("Bo"),
            &json!(1),
            &json!({"milk": true})
        )
    );
    let remaining = cup["lease_remaining_ms"].as_u64().unwrap();
    assert!((1..=120_000).contains(&remaining), "{remaining}");
    // A tablet that was reloaded asks for its own.
    let own = shop.staff.expect(get("/line?barista=Di"), 200).await;
    assert_eq!(own["cups"].as_array().unwrap().len(), 1);
    assert_eq!(
        (&own["cups"][0]["order_id"], &own["brewing"]),
        (&json!(di.id), &json!(2))
    );
    let extended = shop
        .staff
        .expect(post(format!("/extend/?order_id={}", di.id)), 200)
        .await;
    assert_eq!(extended["lease_remaining_ms"], 120_000);
    shop.try_finish(&di.id, "").await.expect(200);
    let now = line
        .until(|line| line["recent"].as_array().unwrap().len() == 1)
        .await;
    assert_eq!(
        (&now["recent"][0]["barista"], &now["recent"][0]["customer"]),
        (&json!("Di"), &json!("Bob"))
    );
    shop.staff
        .expect_problem(get("/line?barista="), 422, "invalid")
        .await;
    drop(line);
    shop.close().await;
}

#[tokio::test]
async fn a_closed_line_takes_no_orders_says_why_and_serves_those_in_it() {
    let shop = Shop::open(&[]).await;
    let mut board = shop.customers.events(get("/board")).await;
    board.expect("board").await;
    let key = order().key("customer-with-a-key");
    let held = shop.customer(key.clone()).await;
    let closed = json!({
        "open": false,
        "message": {"en": "Back at 14:00", "de": "Um 14 Uhr zurück"},
        "until": "2100-01-01T14:00:00Z",
    });
    let door = put("/line/door").json(&closed);
    let said = shop.staff.expect(door, 200).await;
    assert_eq!(said["message"], closed["message"]);
    let refused = shop.customers.ask(order()).await;
    let problem = refused.expect_problem(503, "closed");
    assert_eq!(problem["message"]["en"], "Back at 14:00");
    assert!(refused.retry_after() > 0);
    let shown = board.until(|board| board["open"] == false).await;
    assert_eq!(
        (&shown["message"], &shown["waiting"]),
        (&closed["message"], &json!(1))
    );
    // Who is in line comes back to it.
    let again = shop.customer(key).await;
    shop.serve_all().await;
    for visitor in [held, again] {
        visitor.answer().await.expect(200);
    }
    shop.staff
        .expect(put("/line/door").json(&json!({"open": true})), 200)
        .await;
    board.until(|board| board["open"] == true).await;
    let open = shop.customer(order()).await;
    open.leave().await;
    for (wrong, pointer) in [
        (json!({}), "/open"),
        (json!({"open": 1}), "/open"),
        (json!({"open": false, "message": "later"}), "/message"),
        (
            json!({"open": false, "message": {"e": "later"}}),
            "/message",
        ),
        (json!({"open": false, "message": {"en": ""}}), "/message"),
        (json!({"open": false, "until": "soon"}), "/until"),
    ] {
        let refused = shop.staff.ask(put("/line/door").json(&wrong)).await;
        let problem = refused.expect_problem(422, "invalid");
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{wrong}");
    }
    drop(board);
    shop.close().await;
}

#[tokio::test]
async fn streams_are_bounded_and_one_too_many_places_no_order() {
    let shop = Shop::open(&[("pages.streams_max", "2")]).await;
    let first = shop.customers.events(get("/board")).await;
    let second = shop.customers.events(get("/board")).await;
    for ask in [get("/board"), order()] {
        let refused = shop
            .customers
            .ask(ask.header("accept", "text/event-stream"))
            .await;
        refused.expect_problem(503, "too-many-streams");
        assert!(refused.retry_after() > 0);
    }
    assert_eq!(shop.metrics().await.placed(), 0);
    // The staff have their own.
    shop.staff.events(get("/line")).await.expect("line").await;
    drop(first);
    let board = get("/board").header("accept", "text/event-stream");
    until("there is a place again", async || {
        // An open stream is no answer yet.
        let mut connection = shop.customers.connect().await;
        let asked = tokio::time::timeout(Duration::from_millis(200), connection.ask(&board));
        asked.await.is_err()
    })
    .await;
    drop(second);
    shop.close().await;
}

#[tokio::test]
async fn a_stream_on_which_nothing_happens_has_a_beat() {
    let shop = Shop::open(&[("pages.beat", "1s")]).await;
    let mut raw = shop.customers.raw().await;
    raw.write("GET /board HTTP/1.1\r\nhost: localhost\r\naccept: text/event-stream\r\n\r\n")
        .await;
    let mut seen = String::new();
    within("there is a beat", async {
        while !seen.contains(": beat") {
            let mut bytes = [0; 512];
            let count = tokio::io::AsyncReadExt::read(&mut raw.0, &mut bytes)
                .await
                .unwrap();
            seen.push_str(str::from_utf8(&bytes[..count]).unwrap());
        }
    })
    .await;
    let seen = seen.to_ascii_lowercase();
    for part in [
        "content-type: text/event-stream",
        "cache-control: no-store",
        "x-accel-buffering: no",
        "retry: 2000",
        "event: board",
    ] {
        assert!(seen.contains(part), "{part} in {seen}");
    }
    drop(raw);
    shop.close().await;
}

#[tokio::test]
async fn a_reader_who_reads_nothing_for_a_while_gets_the_latest_state() {
    let shop = Shop::open(&[]).await;
    let mut line = shop.staff.events(get("/line")).await;
    line.expect("line").await;
    let mut ids = Vec::new();
    for _ in 0..50 {
        ids.push(shop.promised().await);
    }
    for id in &ids[..49] {
        shop.customers
            .expect(delete(format!("/orders/{id}")), 200)
            .await;
    }
    // At most four states a second were made for it, and none waits for it longer than it takes to send.
    let last = line.until(|line| line["waiting"] == 1).await;
    assert_eq!(last["next"][0]["order_id"], json!(ids[49]));
    drop(line);
    shop.close().await;
}

/// The fields that do not change by themselves.
fn without_times(state: &Value) -> Value {
    match state {
        Value::Object(fields) => fields
            .iter()
            .filter(|(name, _)| !name.ends_with("_ms"))
            .map(|(name, value)| (name.clone(), without_times(value)))
            .collect(),
        Value::Array(items) => items.iter().map(without_times).collect(),
        other => other.clone(),
    }
}

#[tokio::test]
async fn a_reader_who_connects_again_and_again_sees_the_line_as_it_is() {
    let seed = Seed::from_environment();
    let mut random = fastrand::Rng::with_seed(seed.0);
    let shop = Shop::open(&[]).await;
    let mut line = shop.staff.events(get("/line")).await;
    let (mut waiting, mut brewing, mut ready) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..12 {
        for _ in 0..random.usize(1..6) {
            match random.u8(0..6) {
                0 if !waiting.is_empty() => {
                    let id: String = waiting.remove(random.usize(..waiting.len()));
                    shop.customers
                        .expect(delete(format!("/orders/{id}")), 200)
                        .await;
                }
                1 | 2 if !waiting.is_empty() => {
                    let started = shop.start().await;
                    assert_eq!(started.id, waiting.remove(0));
                    brewing.push(started.id);
                }
                3 if !brewing.is_empty() => {
                    let id = brewing.remove(random.usize(..brewing.len()));
                    shop.finish(&id).await;
                    ready.insert(0, id);
                }
                4 if !brewing.is_empty() => {
                    let id = brewing.remove(random.usize(..brewing.len()));
                    shop.staff
                        .expect(post(format!("/release/?order_id={id}")), 200)
                        .await;
                    waiting.push(id);
                    // By their places; ids sort by them.
                    waiting.sort();
                }
                _ => waiting.push(shop.promised().await),
            }
        }
        if random.bool() {
            line = shop.staff.events(get("/line")).await;
        }
        let ids = |state: &Value, of: &str| -> Vec<String> {
            let orders = state[of].as_array().unwrap().iter();
            orders.map(id_of).collect()
        };
        brewing.sort();
        let (next, recent) = (
            &waiting[..waiting.len().min(24)],
            &ready[..ready.len().min(24)],
        );
        let shown = line
            .until(|state| {
                let mut cups = ids(state, "cups");
                cups.sort();
                ids(state, "next") == next && cups == brewing && ids(state, "recent") == recent
            })
            .await;
        let now = shop.staff.expect(get("/line"), 200).await;
        assert_eq!(without_times(&shown), without_times(&now));
    }
    drop(line);
    shop.close().await;
}
