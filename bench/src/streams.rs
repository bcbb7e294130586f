//! Held orders as HTTP/2 streams of one connection: what an order costs when it brings no connection of its own.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use h2::client::{ResponseFuture, SendRequest};
use hyper::{Request, StatusCode};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::client::Client;
use crate::http::order_id;
use crate::memory::{LOOK_EVERY, Rest, resident_bytes, share};
use crate::peers::Server;
use crate::subject::Subject;

/// For all streams to be opened, and for all to be answered.
const PATIENCE: Duration = Duration::from_mins(1);
/// No answer waits for another to be read.
const WINDOW_BYTES: u32 = 64 * 1024 * 1024;
const BARISTAS: u32 = 10;

/// Resident bytes per held stream.
pub(crate) fn per_held(server: &Server, held: u32) -> Result<f64> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        hold(server, 1).await?;
        let idle = settled(server.pid()).await?;
        let full = hold(server, held).await?;
        Ok(share(idle, full, held))
    })
}

/// Opens that many streams with an order each, looks at the server's resident memory, and has all answered.
async fn hold(server: &Server, held: u32) -> Result<u64> {
    let stream = TcpStream::connect(server.customers)
        .await
        .context("connecting")?;
    let (orders, connection) = h2::client::Builder::new()
        .initial_connection_window_size(WINDOW_BYTES)
        .initial_max_send_streams(usize::try_from(held)?)
        .handshake::<_, bytes::Bytes>(stream)
        .await
        .context("greeting with HTTP/2")?;
    let connection = tokio::spawn(connection);

    let placed = timeout(PATIENCE, place(orders, server.customers, held)).await;
    let answers =
        placed.context("not all streams could be opened; the server may allow fewer")??;
    let resident = settled(server.pid()).await?;

    let staff = server.staff;
    let baristas = tokio::task::spawn_blocking(move || serve(staff, held));
    let answered = timeout(PATIENCE, collect(answers)).await;
    let mut answered = answered.context("not all streams were answered")??;
    let finished = baristas.await.context("the baristas")??;
    answered.sort_unstable();
    ensure!(
        answered.windows(2).all(|pair| pair[0] != pair[1]),
        "two streams were given the same order"
    );
    ensure!(
        answered == finished,
        "the answered orders are not those that were finished"
    );
    // Nothing is outstanding, so the connection has nothing more to say.
    connection.abort();
    Ok(resident)
}

async fn place(
    orders: SendRequest<bytes::Bytes>,
    counter: SocketAddr,
    held: u32,
) -> Result<Vec<ResponseFuture>> {
    let mut orders = orders;
    let mut answers = Vec::new();
    for _ in 0..held {
        orders = orders.ready().await.context("opening a stream")?;
        let order = Request::post(format!("http://{counter}/order/")).body(())?;
        let (answer, _) = orders.send_request(order, true)?;
        answers.push(answer);
    }
    Ok(answers)
}

async fn collect(answers: Vec<ResponseFuture>) -> Result<Vec<u128>> {
    let mut orders = Vec::with_capacity(answers.len());
    for answer in answers {
        let (head, mut body) = answer.await.context("reading an answer")?.into_parts();
        ensure!(
            head.status == StatusCode::OK,
            "a stream was answered {}",
            head.status
        );
        let mut bytes = Vec::new();
        while let Some(chunk) = body.data().await {
            let chunk = chunk?;
            body.flow_control().release_capacity(chunk.len())?;
            bytes.extend_from_slice(&chunk);
        }
        orders.push(order_id(&bytes)?.0);
    }
    Ok(orders)
}

/// Baristas on plain connections make that many coffees.
fn serve(staff: SocketAddr, orders: u32) -> Result<Vec<u128>> {
    let orders = usize::try_from(orders)?;
    let (framing, baristas) = Subject::baristas(BARISTAS);
    let mut client = Client::new(framing)?;
    for barista in baristas {
        client.connect(Ipv4Addr::LOCALHOST, staff, barista)?;
    }
    client.run_while(PATIENCE, |ledger| {
        ledger.finished() < orders || !ledger.everything_confirmed()
    })?;
    Ok(client.ledger.into_finished())
}

async fn settled(pid: u32) -> Result<u64> {
    let mut rest = Rest::new();
    loop {
        let resident = resident_bytes(pid)?;
        if rest.reached(resident) {
            return Ok(resident);
        }
        sleep(LOOK_EVERY).await;
    }
}
