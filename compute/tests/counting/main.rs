//! What Shoal costs and how far it reaches, counted at the store rather than timed.
//!
//! Every test runs the real `shoal serve` as a process of its own against an emulated S3, and looks at the
//! emulator's counters by operation and key class: `w` is the log, `inc` the node's own record (heartbeat
//! and hint), `n` names, `head`, `pack` and `map` a database.
//!
//! | module | what it shows |
//! |---|---|
//! | [`cost`] | a commit is one log PUT, a cached read nothing, the first use of a database a fixed few |
//! | [`idle`] | a thousand idle databases cost their node's heartbeat, and nothing else |
//! | [`cold`] | after a restart on an empty cache little is fetched, and a small change folds small |
//! | [`ahead`] | cold scans, points, and many who want the same |
//! | [`warm`] | a node that was killed has its pages on its disk |
//! | [`memory`] | memory stays bounded however much is written |
//! | [`large`] | and however large the transactions and the sorts |
//! | [`files`] | and its files within the size of its cache |
//! | [`crowd`] | many writers of one database share PUTs |
//! | [`forks`] | what a fork costs, whatever the size of the database, and a look at the past |
//! | [`gate`] | what depends on a commit that is not durable yet is not shown |

mod ahead;
mod client;
mod clock;
mod cold;
mod cost;
mod crowd;
mod files;
mod forks;
mod gate;
mod idle;
mod large;
mod memory;
mod requests;
mod rig;
mod shoal;
mod warm;
