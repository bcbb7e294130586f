//! `simulators flood`: one visitor who orders thousands of coffees at once, always from the same address.

mod deeds;
mod flooder;
mod list;

use std::{net::Ipv4Addr, pin::pin, sync::Arc, time::Duration};

use anyhow::Result;
use clap::Args;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use self::deeds::Beginning;
pub(crate) use self::{
    deeds::Deeds,
    flooder::{Connections, Flooder, Manner},
    list::forgive,
};
use crate::{
    baristas::SHOP_REACHED,
    client::admitted,
    connection::Address,
    options::{Credential, CustomersDoor, Output, Pace, duration},
    outcome::Outcome,
    progress::{self, Progress},
    scenario::{Env, Scenario},
    shop::BLOCKED,
};

/// Orders in flight at once of a flooder with persistent connections; the default.
const KEPT_AT_ONCE: u32 = 500;

/// Order thousands of coffees at once from one address, and see how soon one is cut off
///
/// Ends when all orders have been answered, after --for, or on ctrl-c. A flooder expects no coffee: the exit code is 0
/// whenever the shop could be reached. All times are measured, as the shop's flood control uses real time.
#[derive(Debug, Args)]
pub struct Options {
    #[command(flatten)]
    door: CustomersDoor,
    /// Base URL of the staff's side, to look up when the address is cut off [default: not looked up]
    #[arg(long = "staff", value_name = "URL", help_heading = "Shop")]
    staff_address: Option<Address>,
    #[command(flatten)]
    credential: Credential,
    #[command(flatten)]
    flood: Flood,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// The flood.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Flood")]
struct Flood {
    /// Orders in all, 1 to 100000
    #[arg(long, value_name = "N", default_value_t = 5000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    orders: u32,
    /// Address of this machine that the flooder comes from, IPv4
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.66.6")]
    from: Ipv4Addr,
    /// Orders without an answer at the same time, 1 to 100000 [default: all; 500 with --connections kept]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    at_once: Option<u32>,
    /// How connections are used
    #[arg(long, value_enum, default_value_t = Connections::New)]
    connections: Connections,
    /// How the flooder speaks
    #[arg(long, value_enum, default_value_t = Manner::Plain)]
    manner: Manner,
    /// Pause after each byte of what is slow, measured, 0s to 24h
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = duration)]
    pause: Duration,
    /// End after this long, measured, 0s to 24h
    #[arg(long = "for", value_name = "TIME", default_value = "2m", value_parser = duration)]
    length: Duration,
}

impl Flood {
    fn check(&self) -> Result<(), String> {
        if self.connections == Connections::Kept && self.manner != Manner::Plain {
            let reason = "a slow flooder uses a connection once: --connections kept goes with --manner plain";
            return Err(reason.to_owned());
        }
        Ok(())
    }

    fn flooder(&self, shop: Address) -> Flooder {
        let at_once = match self.connections {
            Connections::New => self.orders,
            Connections::Kept => KEPT_AT_ONCE,
        };
        Flooder {
            shop,
            from: self.from,
            orders: self.orders,
            at_once: self.at_once.unwrap_or(at_once),
            connections: self.connections,
            manner: self.manner,
            pause: self.pause,
        }
    }
}

impl Scenario for Options {
    fn check(&self) -> Result<(), String> {
        self.flood.check()
    }

    async fn run(&self, env: Env) -> Result<Outcome> {
        let staff = match &self.staff_address {
            Some(address) => Some(self.credential.added_to(address)?),
            None => None,
        };
        if let Some(staff) = &staff {
            admitted(staff, BLOCKED).await?;
        }
        let flooder = self.flood.flooder(self.door.customers_address.clone());
        let progress = Progress::of_customers(usize::try_from(flooder.orders)?);
        let shown = progress::show(&progress, env.display);
        let begun = Instant::now();
        let over = env.closing.child_token();
        let mut flood = pin!(let_loose(flooder, staff, progress, over.clone()));
        let deeds = tokio::select! {
            deeds = &mut flood => deeds?,
            () = sleep(self.flood.length) => {
                over.cancel();
                flood.await?
            }
        };
        drop(shown);
        let mut outcome = Outcome::new("flood", &Pace::real_time(0), begun.elapsed());
        outcome.seed = None;
        // A flooder expects nothing but a shop that can be reached.
        let verdict = if deeds.shop_reached {
            deeds.verdict()
        } else {
            "The shop never answered.".to_owned()
        };
        Ok(outcome
            .with(deeds.part())
            .requires(SHOP_REACHED, deeds.shop_reached)
            .verdict_in_any_case(verdict)
            .drawn_from(deeds.answers()))
    }
}

/// Floods the shop until all orders have been answered or `over` is cancelled; at the same time polls when the flooder is
/// cut off, if there is a staff listener to ask.
pub(crate) async fn let_loose(
    flooder: Flooder,
    staff: Option<Address>,
    progress: Arc<Progress>,
    over: CancellationToken,
) -> Result<Deeds> {
    let begun = Beginning::now();
    let ended = over.child_token();
    let flood = async {
        let visits = flooder.clone().flood(begun.at, progress, over).await;
        ended.cancel();
        visits
    };
    let watch = async {
        let staff = staff?;
        Some(list::watch(staff, flooder.from, begun.at, ended.clone()).await)
    };
    let (visits, listed) = tokio::join!(flood, watch);
    Ok(Deeds::of(&flooder, begun, &visits?, listed))
}
