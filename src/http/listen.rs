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
/// The kernel's memory for what was sent and is not acknowledged, per connection; it doubles the number. Enough for 2.5 MB a
/// second to the other side of the earth, and a bound where the kernel's own is 4 MB.
const SEND_BUFFER_BYTES: usize = 256 * 1024;
/// The kernel takes no more of an answer while so much has not been sent: what a client does not read stays here, where it
/// is shared with others who ask for the same, and `http.write_timeout` sees that nothing is taken.
const UNSENT_MAX_BYTES: u32 = 16 * 1024;
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
    options.set_send_buffer_size(SEND_BUFFER_BYTES)?;
    options.set_tcp_notsent_lowat(UNSENT_MAX_BYTES)?;
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
