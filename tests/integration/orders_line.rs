//! The line as a whole: every order that was placed is counted once more, whichever way it ends.

use serde_json::Value;

use crate::client::{delete, order, post};
use crate::metrics::Metrics;
use crate::shop::{Shop, text};

/// RFC 3339 in UTC; the number of fractional digits varies, so the texts themselves do not sort.
pub(crate) fn text_time(json: &Value) -> jiff::Timestamp {
    text(json).parse().unwrap()
}

/// Leaves without being served, in each way there is, and is counted once.
#[tokio::test]
async fn every_order_that_was_placed_is_finished_or_cancelled_or_pending() {
    let shop = Shop::open(&[
        ("orders.lease", "1s"),
        ("orders.reconnect_grace", "1s"),
        ("flood.outstanding_max", "3"),
        ("flood.cutoff_after", "2"),
    ])
    .await;
    let leave = async |ask| shop.customer(ask).await.leave().await;

    leave(order()).await;
    leave(order().key("away")).await;
    let deleted = shop.promised().await;
    shop.customers
        .expect(delete(format!("/orders/{deleted}")), 200)
        .await;
    shop.until("nobody is in line", |now| now.waiting() == 0)
        .await;

    // Left while it was brewed: once the lease runs out, once it is released, once with a key.
    let brewing = shop.customer(order()).await;
    shop.start().await;
    brewing.leave().await;
    shop.until("the lease has run out", |now| now.brewing() == 0)
        .await;
    let brewing = shop.customer(order()).await;
    let started = shop.start().await;
    brewing.leave().await;
    shop.until("nobody is held", |now| now.held() == 0).await;
    shop.staff
        .expect(post(format!("/release/?order_id={}", started.id)), 200)
        .await;
    let brewing = shop.customer(order().key("gone")).await;
    shop.start().await;
    brewing.leave().await;
    let all = shop
        .until("nothing is pending", |now| {
            now.waiting() + now.brewing() == 0 && now.orders_add_up()
        })
        .await;
    let reasons = ["left", "unwanted", "abandoned", "deleted", "cut_off"];
    assert_eq!(reasons.map(|reason| all.cancelled(reason)), [1, 2, 2, 1, 0]);
    assert_eq!(
        (all.requeued("expired"), all.requeued("released")),
        (1, 0),
        "only what is in line again was requeued"
    );
    assert_eq!(all.count("odyssey_orders_abandoned_requests_total"), 5);
    assert_eq!(all.count("odyssey_orders{stage=\"ready\"}"), 0);
    assert_eq!(all.count("odyssey_orders{stage=\"cancelled\"}"), 4);

    // Brewing, waiting, and cut off.
    let finished = shop.promised().await;
    shop.start().await;
    shop.finish(&finished).await;
    let pending = [shop.customer(order()).await, shop.customer(order()).await];
    shop.start().await;
    let third = shop.customer(order()).await;
    shop.customers.ask(order()).await.expect(429);
    third.leave().await;
    shop.until("there is room for one", |now| now.waiting() == 1)
        .await;
    let excess = shop.customer(order()).await;
    shop.customers.ask(order()).await.expect(429);
    excess.answer().await.expect_problem(429, "cut-off");
    let all = shop.until("it adds up", Metrics::orders_add_up).await;
    assert_eq!(all.cancelled("cut_off"), 1);
    assert_eq!(all.finished(false), 1);
    drop(pending);
    shop.close().await;
}
