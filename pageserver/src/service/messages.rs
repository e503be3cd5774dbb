//! The messages of `proto/pageserver.proto`, and what they mean. What comes from the wire is checked here.

use bytes::Bytes;
use tenant::name::Name;
use tonic::{Code, Status};
use walstore::id::{DatabaseId, IncarnationId, Lsn};
use walstore::recovery::LoggedCommit;

use super::follow::{Ending, Notice, Start};
use super::packs::{OrderRefused, OrderStart};

#[derive(Clone, PartialEq, prost::Message)]
pub struct PagesRequest {
    #[prost(bytes = "bytes", tag = "1")]
    pub database: Bytes,
    #[prost(uint64, tag = "2")]
    pub lsn: u64,
    #[prost(uint32, repeated, tag = "3")]
    pub pages: Vec<u32>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct PagesReply {
    #[prost(uint64, tag = "1")]
    pub lsn: u64,
    #[prost(uint32, tag = "2")]
    pub page_count: u32,
    #[prost(message, repeated, tag = "3")]
    pub pages: Vec<Page>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Page {
    #[prost(uint32, tag = "1")]
    pub page_no: u32,
    #[prost(bytes = "bytes", tag = "2")]
    pub content: Bytes,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct FollowRequest {
    #[prost(oneof = "FollowRequestKind", tags = "1, 2")]
    pub kind: Option<FollowRequestKind>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub enum FollowRequestKind {
    #[prost(message, tag = "1")]
    Start(FollowStart),
    #[prost(uint64, tag = "2")]
    Tick(u64),
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct FollowStart {
    #[prost(bytes = "bytes", tag = "1")]
    pub database: Bytes,
    #[prost(string, tag = "2")]
    pub name: String,
    #[prost(bytes = "bytes", tag = "3")]
    pub incarnation: Bytes,
    #[prost(uint64, tag = "4")]
    pub after: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct FollowNotice {
    #[prost(oneof = "FollowNoticeKind", tags = "1, 2, 3")]
    pub kind: Option<FollowNoticeKind>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub enum FollowNoticeKind {
    #[prost(message, tag = "1")]
    Commit(Commit),
    #[prost(uint64, tag = "2")]
    Folded(u64),
    #[prost(message, tag = "3")]
    Heartbeat(Heartbeat),
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Commit {
    #[prost(uint64, tag = "1")]
    pub epoch: u64,
    #[prost(uint64, tag = "2")]
    pub lsn: u64,
    #[prost(bytes = "bytes", tag = "3")]
    pub bytes: Bytes,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Heartbeat {
    #[prost(uint64, tag = "1")]
    pub tick: u64,
    #[prost(uint64, tag = "2")]
    pub durable: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct PackPiece {
    #[prost(oneof = "PackPieceKind", tags = "1, 2")]
    pub kind: Option<PackPieceKind>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub enum PackPieceKind {
    #[prost(message, tag = "1")]
    Start(PackStart),
    #[prost(bytes = "bytes", tag = "2")]
    Bytes(Bytes),
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct PackStart {
    #[prost(uint64, tag = "1")]
    pub bytes: u64,
    #[prost(fixed32, tag = "2")]
    pub crc: u32,
    #[prost(uint64, tag = "3")]
    pub pages: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct PackMade {}

impl From<OrderStart> for PackStart {
    fn from(start: OrderStart) -> Self {
        let OrderStart { bytes, crc, pages } = start;
        Self { bytes, crc, pages }
    }
}

impl From<PackStart> for OrderStart {
    fn from(start: PackStart) -> Self {
        let PackStart { bytes, crc, pages } = start;
        Self { bytes, crc, pages }
    }
}

impl From<OrderRefused> for Status {
    fn from(refused: OrderRefused) -> Self {
        match refused {
            OrderRefused::Busy => Self::resource_exhausted(refused.to_string()),
            OrderRefused::Invalid(text) => Self::invalid_argument(text),
            OrderRefused::Failed(text) => Self::unavailable(text),
        }
    }
}

impl From<Status> for OrderRefused {
    fn from(status: Status) -> Self {
        match status.code() {
            Code::ResourceExhausted => Self::Busy,
            Code::InvalidArgument => Self::Invalid(status.message().to_owned()),
            Code::Unavailable => Self::Failed(status.message().to_owned()),
            _ => Self::Failed(status.to_string()),
        }
    }
}

fn id(bytes: &Bytes, what: &str) -> Result<[u8; 16], Status> {
    let id = <[u8; 16]>::try_from(&bytes[..]);
    id.map_err(|_| Status::invalid_argument(format!("{what} is an id of 16 bytes, not of {}", bytes.len())))
}

/// The database that a request is about.
pub fn database_id(bytes: &Bytes) -> Result<DatabaseId, Status> {
    id(bytes, "`database`").map(DatabaseId::from_bytes)
}

impl From<&Start> for FollowStart {
    fn from(start: &Start) -> Self {
        Self {
            database: Bytes::copy_from_slice(start.database.as_bytes()),
            name: start.name.to_string(),
            incarnation: Bytes::copy_from_slice(start.incarnation.as_bytes()),
            after: Lsn::raw(start.after),
        }
    }
}

impl FollowStart {
    pub fn check(&self) -> Result<Start, Status> {
        let name = Name::parse(&self.name).map_err(|error| Status::invalid_argument(error.to_string()))?;
        let incarnation = IncarnationId::from_bytes(id(&self.incarnation, "`incarnation`")?);
        Ok(Start { database: database_id(&self.database)?, name, incarnation, after: Lsn::new(self.after) })
    }
}

impl From<Notice> for FollowNotice {
    fn from(notice: Notice) -> Self {
        let kind = match notice {
            Notice::Commit(LoggedCommit { epoch, lsn, bytes }) => {
                FollowNoticeKind::Commit(Commit { epoch, lsn: lsn.get(), bytes })
            }
            Notice::Folded(lsn) => FollowNoticeKind::Folded(lsn.get()),
            Notice::Heartbeat { tick, durable } => FollowNoticeKind::Heartbeat(Heartbeat { tick, durable }),
        };
        Self { kind: Some(kind) }
    }
}

impl FollowNotice {
    /// `None` is a kind of a later version.
    pub fn check(self) -> Result<Option<Notice>, Ending> {
        let lsn = |lsn| Lsn::new(lsn).ok_or_else(|| Ending::Broken("a commit with LSN 0".into()));
        Ok(match self.kind {
            None => None,
            Some(FollowNoticeKind::Commit(Commit { epoch, lsn: raw, bytes })) => {
                Some(Notice::Commit(LoggedCommit { epoch, lsn: lsn(raw)?, bytes }))
            }
            Some(FollowNoticeKind::Folded(raw)) => Some(Notice::Folded(lsn(raw)?)),
            Some(FollowNoticeKind::Heartbeat(Heartbeat { tick, durable })) => Some(Notice::Heartbeat { tick, durable }),
        })
    }
}

impl From<Ending> for Status {
    fn from(ending: Ending) -> Self {
        match ending {
            Ending::NotHere(text) => Self::not_found(text),
            Ending::Folded(text) => Self::failed_precondition(text),
            Ending::Slow(text) => Self::resource_exhausted(text),
            Ending::Over(text) | Ending::Broken(text) => Self::unavailable(text),
        }
    }
}

impl From<Status> for Ending {
    fn from(status: Status) -> Self {
        let text = status.message().to_owned();
        match status.code() {
            Code::NotFound => Self::NotHere(text),
            Code::FailedPrecondition => Self::Folded(text),
            Code::ResourceExhausted => Self::Slow(text),
            Code::Unavailable => Self::Over(text),
            _ => Self::Broken(status.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message;

    #[test]
    fn what_is_sent_is_what_arrives() {
        let start = Start {
            database: DatabaseId::from_bytes([1; 16]),
            name: Name::parse("app").expect("a name"),
            incarnation: IncarnationId::from_bytes([2; 16]),
            after: Lsn::new(9),
        };
        let bytes = FollowStart::from(&start).encode_to_vec();
        assert_eq!(FollowStart::decode(&bytes[..]).expect("its own bytes").check().expect("whole"), start);
        let lsn = Lsn::new(3).expect("not 0");
        let commit = LoggedCommit { epoch: 4, lsn, bytes: Bytes::from_static(b"commit") };
        for notice in [Notice::Commit(commit), Notice::Folded(lsn), Notice::Heartbeat { tick: 5, durable: 0 }] {
            let bytes = FollowNotice::from(notice.clone()).encode_to_vec();
            assert_eq!(FollowNotice::decode(&bytes[..]).expect("its own bytes").check(), Ok(Some(notice)));
        }
    }

    #[test]
    fn an_order_arrives_with_what_announces_it_and_a_refusal_with_its_reason() {
        let start = OrderStart::of(b"an order", 7);
        let piece = PackPiece { kind: Some(PackPieceKind::Start(start.into())) };
        let arrived = PackPiece::decode(&piece.encode_to_vec()[..]).expect("its own bytes");
        let Some(PackPieceKind::Start(found)) = arrived.kind else { panic!("{arrived:?}") };
        assert_eq!(OrderStart::from(found), start);
        for refused in [OrderRefused::Busy, OrderRefused::Invalid("what".into()), OrderRefused::Failed("why".into())] {
            assert_eq!(OrderRefused::from(Status::from(refused.clone())), refused);
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let wrong = FollowStart { database: Bytes::from_static(b"short"), name: "app".into(), ..FollowStart::default() };
        assert_eq!(wrong.check().expect_err("short ids").code(), Code::InvalidArgument);
        let wrong = FollowStart { name: "../x".into(), ..FollowStart::default() };
        assert_eq!(wrong.check().expect_err("no name").code(), Code::InvalidArgument);
        let zero = FollowNotice { kind: Some(FollowNoticeKind::Folded(0)) };
        assert!(zero.check().is_err());
        assert_eq!(FollowNotice::default().check(), Ok(None), "of a later version");
    }
}
