//! How long the tests wait before they call something broken. None of these is a measurement: they are
//! many times what a loaded machine of two cores needs, and only a failing test ever waits so long.

use std::time::Duration;

/// For a server to answer `/health` after its start. It includes waiting for a predecessor's lease.
pub const START: Duration = Duration::from_secs(60);

/// For a process to end, on SIGTERM or because it cannot start.
pub const END: Duration = Duration::from_secs(60);

/// For one HTTP request. Longer than any time-out of the server, so that it is the server that decides.
pub const REQUEST: Duration = Duration::from_secs(90);

/// For a server that answers 503 to serve again.
pub const RECOVERY: Duration = Duration::from_secs(90);

/// Between two looks at something that can only be polled.
pub const POLL: Duration = Duration::from_millis(10);

/// Lines of a process's log that a failing test prints.
pub const LOG_TAIL_LINES: usize = 80;
