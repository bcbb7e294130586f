//! Opens listening sockets with kernel options for bursts and vanished peers.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::TcpListener;

/// Keepalive probes begin after this silence, ...
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
/// ... are repeated this often, ...
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// ... and the peer is dropped after so many unanswered ones.
const KEEPALIVE_RETRIES: u32 = 3;
/// `SO_SNDBUF`, which the kernel doubles. Enough for 2.5 MB/s at 200 ms; the kernel's own bound is 4 MB.
const SEND_BUFFER_BYTES: usize = 256 * 1024;
/// `TCP_NOTSENT_LOWAT`: what a client does not read stays in user space, where cached answers are shared, and
/// `http.write_timeout` sees the stall.
const UNSENT_MAX_BYTES: u32 = 16 * 1024;
/// `TCP_USER_TIMEOUT`: as long as the keepalive takes.
const USER_TIMEOUT: Duration = Duration::from_mins(1);

/// Opens a listening socket. Accepted connections inherit its options (tcp(7)), which saves a system call for each
/// option of each connection in a burst.
///
/// # Errors
/// If the address cannot be bound.
pub fn listen(address: SocketAddr, backlog: u32) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM.nonblocking().cloexec(),
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    socket.set_tcp_nodelay(true)?;
    let options = SockRef::from(&socket);
    options.set_tcp_keepalive(
        &TcpKeepalive::new()
            .with_time(KEEPALIVE_IDLE)
            .with_interval(KEEPALIVE_INTERVAL)
            .with_retries(KEEPALIVE_RETRIES),
    )?;
    options.set_tcp_user_timeout(Some(USER_TIMEOUT))?;
    options.set_send_buffer_size(SEND_BUFFER_BYTES)?;
    options.set_tcp_notsent_lowat(UNSENT_MAX_BYTES)?;
    socket.bind(&address.into())?;
    socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
    TcpListener::from_std(socket.into())
}

/// Raises the soft limit of open files to the hard limit, and returns it.
pub fn raise_open_files() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    if setrlimit(Resource::Nofile, raised).is_ok() {
        limit.maximum.unwrap_or(u64::MAX)
    } else {
        limit.current.unwrap_or(u64::MAX)
    }
}
