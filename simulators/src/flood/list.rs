//! Watches, on the staff's side, for the moment at which an address is cut off.

use std::{net::Ipv4Addr, time::Duration};

use serde::Serialize;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::{
    client::Failure,
    connection::Address,
    pace::seconds,
    shop::{CutOff, Operator},
};

/// Measured time between two looks; the moment of the cut-off is known no better than this.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// Measured time for a look.
const LOOK_MAX: Duration = Duration::from_secs(2);

/// What the shop's list said about an address by the end of the flood.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Listed {
    /// From the beginning of the flood until it was first seen in the list; measured.
    #[serde(rename = "after_s", serialize_with = "seconds")]
    pub(crate) after: Duration,
    pub(crate) until: jiff::Timestamp,
    /// Orders that the shop itself refused, where it counts them; what a door before it refused is not among them.
    pub(crate) refused_by_shop: Option<u64>,
}

impl Listed {
    fn new(after: Duration, entry: CutOff) -> Self {
        Self {
            after,
            until: entry.until,
            refused_by_shop: entry.refused,
        }
    }
}

/// Looks until the address is listed as cut off and the flood is `over`; none when it was not listed by then.
pub(crate) async fn watch(
    staff: Address,
    address: Ipv4Addr,
    begun: Instant,
    over: CancellationToken,
) -> Result<Option<Listed>, Failure> {
    let mut operator = Operator::new(staff);
    let listed = loop {
        let last = over.is_cancelled();
        match timeout(LOOK_MAX, operator.cut_off(address)).await {
            Ok(Ok(Some(entry))) => break Listed::new(begun.elapsed(), entry),
            Ok(Err(failure)) if last || !failure.is_temporary() => return Err(failure),
            _ if last => return Ok(None),
            _ => {}
        }
        over.run_until_cancelled(sleep(LOOK_EVERY)).await;
    };
    over.cancelled().await;
    // By now the shop has refused more.
    Ok(Some(
        match timeout(LOOK_MAX, operator.cut_off(address)).await {
            Ok(Ok(Some(entry))) => Listed::new(listed.after, entry),
            _ => listed,
        },
    ))
}

/// Lets the address in again if it is still cut off from an earlier run, which would make it an easy catch.
/// A shop that cannot be asked is found out by [`watch`].
pub(crate) async fn forgive(staff: Address, address: Ipv4Addr) {
    let mut operator = Operator::new(staff);
    let forgiving = async {
        if let Ok(Some(_)) = operator.cut_off(address).await {
            operator.let_in(address).await.ok();
        }
    };
    // A shop that does not answer in time does not answer the watch either.
    timeout(LOOK_MAX, forgiving).await.ok();
}
