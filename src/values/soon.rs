//! A value that is there already, or will be.

use std::fmt;
use std::future::Future;
use std::pin::Pin;

/// A value, or a future of it. What has its answer in memory gives it without a future, which would cost memory and time.
#[must_use = "a future does nothing unless it is polled"]
pub enum Soon<T> {
    Now(T),
    Later(Pin<Box<dyn Future<Output = T> + Send>>),
}

impl<T> fmt::Debug for Soon<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Now(_) => "Now",
            Self::Later(_) => "Later",
        })
    }
}

impl<T> Soon<T> {
    pub fn later(value: impl Future<Output = T> + Send + 'static) -> Self {
        Self::Later(Box::pin(value))
    }

    pub async fn get(self) -> T {
        match self {
            Self::Now(value) => value,
            Self::Later(value) => value.await,
        }
    }
}

impl<T: Send + 'static> Soon<T> {
    pub fn map<U>(self, change: impl FnOnce(T) -> U + Send + 'static) -> Soon<U> {
        match self {
            Self::Now(value) => Soon::Now(change(value)),
            Self::Later(value) => Soon::later(async move { change(value.await) }),
        }
    }

    pub fn then<U: Send + 'static>(
        self,
        next: impl FnOnce(T) -> Soon<U> + Send + 'static,
    ) -> Soon<U> {
        match self {
            Self::Now(value) => next(value),
            Self::Later(value) => Soon::later(async move { next(value.await).get().await }),
        }
    }
}
