//! Held orders as HTTP/2 streams of one connection: what an order costs without a connection of its own.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http2;
use hyper::{Request, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::client::Client;
use crate::engine::{Bench, Sample, Side, sample};
use crate::http::{self, Connection};
use crate::load::BARISTAS;
use crate::memory::{PATIENCE, READ_EVERY, Rest, share};
use crate::orders::{self, order_id};
use crate::programs::Server;
use crate::rows::Subject;

pub(crate) struct Streams<'a> {
    pub(crate) subject: &'static Subject,
    pub(crate) bench: &'a Bench,
}

impl Side for Streams<'_> {
    fn sample(&mut self) -> Result<Sample> {
        let held = self.bench.streams;
        let server = self.bench.programs.start(self.subject)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let each = runtime.block_on(async {
            hold(&server, 1).await?;
            let idle = settled(&server).await?;
            Ok(share(idle, hold(&server, held).await?, held))
        });
        Ok(sample([("per-held", server.explain(each)?)]))
    }
}

/// The server's resident memory with so many streams and an order on each. All of them are answered afterwards.
async fn hold(server: &Server, held: u32) -> Result<u64> {
    let stream = TcpStream::connect(server.customers)
        .await
        .context("connecting")?;
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder.initial_max_send_streams(held as usize);
    let opened = builder.handshake(TokioIo::new(stream)).await;
    let (mut orders, connection) = opened.context("opening an HTTP/2 connection")?;
    let connection = tokio::spawn(connection);

    let mut answers = Vec::new();
    for _ in 0..held {
        orders.ready().await.context("opening a stream")?;
        let order = Request::post(format!("http://{}/order/", server.customers));
        answers.push(orders.send_request(order.body(Empty::<Bytes>::new())?));
    }
    let resident = settled(server).await?;
    let staff = server.staff;
    tokio::task::spawn_blocking(move || waiting(staff, held)).await??;

    let baristas = tokio::task::spawn_blocking(move || serve(staff, held));
    let mut answered = Vec::new();
    for answer in answers {
        let answer = timeout(PATIENCE, answer)
            .await
            .context("a stream was not answered")??;
        ensure!(
            answer.status() == StatusCode::OK,
            "a stream was answered {}",
            answer.status()
        );
        answered.push(order_id(&answer.into_body().collect().await?.to_bytes())?.0);
    }
    answered.sort_unstable();
    let finished = baristas.await.context("the baristas")??;
    ensure!(
        answered == finished,
        "the answered orders are not those that were finished"
    );
    connection.abort();
    Ok(resident)
}

/// All orders must be waiting: none in the client, because the server allows fewer streams.
fn waiting(staff: SocketAddr, held: u32) -> Result<()> {
    let metrics = Connection::open(staff)?
        .ask(&http::get("/metrics"))?
        .expect(200)?;
    let all_wait = http::contains(
        &metrics.body,
        &format!("odyssey_orders{{stage=\"waiting\"}} {held}\n"),
    );
    ensure!(
        all_wait,
        "fewer than {held} orders are waiting; the server may allow fewer streams"
    );
    Ok(())
}

/// Baristas on HTTP/1.1 connections finish so many orders. Returns their ids in order.
fn serve(staff: SocketAddr, orders: u32) -> Result<Vec<u128>> {
    let orders = usize::try_from(orders)?;
    let mut client = Client::new(crate::http::first)?;
    for _ in 0..BARISTAS {
        client.hire(staff, orders::barista(false, String::new()))?;
    }
    client.run_while(PATIENCE, |ledger| {
        ledger.finished() < orders || !ledger.all_confirmed()
    })?;
    Ok(client.ledger.into_finished())
}

async fn settled(server: &Server) -> Result<u64> {
    let mut rest = Rest::default();
    while !rest.is_reached(server)? {
        sleep(READ_EVERY).await;
    }
    Ok(rest.last())
}
