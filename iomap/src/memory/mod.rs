//! The memory of requests: owned by a request, borrowed from a caller that waits, and bounced.

pub(crate) mod borrowed;
pub(crate) mod request_memory;
