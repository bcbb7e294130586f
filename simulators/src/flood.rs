//! `simulators flood`: one visitor who orders thousands of coffees at once, always from the same address.

use std::{net::Ipv4Addr, pin::pin, sync::Arc, time::Duration};

use anyhow::Result;
use clap::Args;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::{
    connection::Address,
    cut_off,
    deeds::{Beginning, Deeds},
    flooder::{Connections, Flooder, Manner},
    options::{CustomersDoor, Output, duration},
    progress::{self, Progress},
    report::Report,
};

/// Orders in flight at once of a flooder with persistent connections; the default.
const KEPT_AT_ONCE: u32 = 500;

/// Order thousands of coffees at once from one address, and see how soon one is cut off
///
/// Ends when all orders have been answered, after --for, or on ctrl-c. A flooder expects no coffee: the exit code is 0
/// whenever the shop could be reached. All times are measured, as the shop's flood control uses real time.
#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    pub(crate) door: CustomersDoor,
    /// Base URL of the staff's side, to look up when the address is cut off [default: not looked up]
    #[arg(long = "staff", value_name = "URL", help_heading = "Shop")]
    pub(crate) staff_address: Option<Address>,
    #[command(flatten)]
    pub(crate) flood: Flood,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// The flood.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Flood")]
pub(crate) struct Flood {
    /// Orders in all, 1 to 100000
    #[arg(long, value_name = "N", default_value_t = 5000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) orders: u32,
    /// Address of this machine that the flooder comes from, IPv4
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.66.6")]
    pub(crate) from: Ipv4Addr,
    /// Orders without an answer at the same time, 1 to 100000 [default: all; 500 with --connections kept]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) at_once: Option<u32>,
    /// How connections are used
    #[arg(long, value_enum, default_value_t = Connections::New)]
    pub(crate) connections: Connections,
    /// How the flooder speaks
    #[arg(long, value_enum, default_value_t = Manner::Plain)]
    pub(crate) manner: Manner,
    /// Pause after each byte of what is slow, measured, 0s to 24h
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = duration)]
    pub(crate) pause: Duration,
    /// End after this long, measured, 0s to 24h
    #[arg(long = "for", value_name = "TIME", default_value = "2m", value_parser = duration)]
    pub(crate) length: Duration,
}

impl Flood {
    pub(crate) fn check(&self) -> Result<(), String> {
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

pub(crate) async fn run(options: &Options, closing: CancellationToken) -> Result<Report> {
    let flooder = options
        .flood
        .flooder(options.door.customers_address.clone());
    let progress = Progress::of_customers(usize::try_from(flooder.orders)?);
    let shown = progress::show(&progress, options.output.progress);
    let begun = Instant::now();
    let over = closing.child_token();
    let staff = options.staff_address.clone();
    let mut flood = pin!(let_loose(flooder, staff, progress, over.clone()));
    let deeds = tokio::select! {
        deeds = &mut flood => deeds?,
        () = sleep(options.flood.length) => {
            over.cancel();
            flood.await?
        }
    };
    drop(shown);
    let mut report = Report::of_clock("flood", begun.elapsed());
    report.add_flooder(deeds);
    Ok(report)
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
        Some(cut_off::watch(staff, flooder.from, begun.at, ended.clone()).await)
    };
    let (visits, listed) = tokio::join!(flood, watch);
    Ok(Deeds::of(&flooder, begun, &visits?, listed))
}
