//! An operation that completes even if its client leaves.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::runtime::Handle;

/// If this future is dropped half-way, as happens when a client leaves, the rest of `operation` runs on the runtime. So what
/// follows the engine's answer, such as counting it, happens whenever the operation has happened.
pub fn carried_through<T: Send + 'static>(
    operation: impl Future<Output = T> + Send + 'static,
) -> CarriedThrough<T> {
    CarriedThrough {
        operation: Some(Box::pin(operation)),
        begun: false,
    }
}

/// See [`carried_through`].
pub struct CarriedThrough<T: Send + 'static> {
    /// None once it has ended.
    operation: Option<Pin<Box<dyn Future<Output = T> + Send>>>,
    begun: bool,
}

impl<T: Send + 'static> fmt::Debug for CarriedThrough<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CarriedThrough").finish_non_exhaustive()
    }
}

impl<T: Send + 'static> Future for CarriedThrough<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        self.begun = true;
        let operation = self.operation.as_mut();
        let poll = operation
            .expect("not polled after its end")
            .as_mut()
            .poll(cx);
        if poll.is_ready() {
            self.operation = None;
        }
        poll
    }
}

impl<T: Send + 'static> Drop for CarriedThrough<T> {
    fn drop(&mut self) {
        // Without a runtime the process is ending, and the operation with it.
        if let Some(operation) = self.operation.take().filter(|_| self.begun)
            && let Ok(runtime) = Handle::try_current()
        {
            runtime.spawn(operation);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn an_operation_whose_client_leaves_half_way_is_carried_through() {
        for begun in [true, false] {
            let (go, gone) = oneshot::channel();
            let (done, mut is_done) = oneshot::channel();
            let mut operation = carried_through(async move {
                gone.await.unwrap();
                done.send(()).unwrap();
            });
            if begun {
                let polled =
                    std::future::poll_fn(|cx| Poll::Ready(Pin::new(&mut operation).poll(cx)));
                assert!(polled.await.is_pending());
            }
            drop(operation);
            let went = go.send(());
            if begun {
                is_done.await.unwrap();
            } else {
                assert!(
                    went.is_err() && is_done.try_recv().is_err(),
                    "it never began"
                );
            }
        }
    }
}
