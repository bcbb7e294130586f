//! Opening a listening socket so that bursts and vanished peers are taken care of by the kernel.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::TcpListener;

/// A silent peer is first asked after this long, ...
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
/// ... then this often, ...
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// ... and given up after so many questions without an answer.
const KEEPALIVE_RETRIES: u32 = 3;
/// A peer that does not acknowledge what was sent is given up after this long: the same minute.
const USER_TIMEOUT: Duration = Duration::from_mins(1);

/// Opens a listening socket. Accepted connections inherit its options (tcp(7)), which saves a system call for each
/// option of each connection in a burst.
///
/// # Errors
/// If the address cannot be had.
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
    socket.bind(&address.into())?;
    socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
    TcpListener::from_std(socket.into())
}

/// Raises this process's limit of open files as far as it is allowed to, and says what it is then.
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
