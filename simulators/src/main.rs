//! `simulators`: see the library.

use std::process::ExitCode;

/// One thread is plenty for thousands of clients that mostly wait. It also starts them in the order in which they come,
/// so that a picture by order of arrival shows the server's order and not a scheduler's, and leaves the other cores to a
/// server on the same machine.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    simulators::main().await
}
