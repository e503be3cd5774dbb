//! Requests and answers as values, so that a network can delay and repeat them.

use std::ops::Range;

use bytes::Bytes;

use super::Shape;
use crate::store::{Condition, Key, Object, Op, Put, StoreError, StoreErrorKind};

#[derive(Clone, Debug)]
pub(super) enum Request {
    Get(Key),
    GetRange(Key, Range<u64>),
    Put(Key, Bytes, Condition),
    Delete(Key),
    List { prefix: String, after: Option<String>, limit: usize },
}

#[derive(Clone, Debug)]
pub(super) enum Answer {
    Object(Option<Object>),
    Put(Put),
    Deleted,
    Keys(Vec<Key>),
}

impl Request {
    pub fn op(&self) -> Op {
        match self {
            Self::Get(_) => Op::Get,
            Self::GetRange(..) => Op::GetRange,
            Self::Put(..) => Op::Put,
            Self::Delete(_) => Op::Delete,
            Self::List { .. } => Op::List,
        }
    }

    pub fn shape(&self) -> Shape {
        match self {
            Self::Get(_) | Self::GetRange(..) => Shape::Get,
            Self::Put(_, _, Condition::None) => Shape::Put,
            Self::Put(..) => Shape::ConditionalPut,
            Self::Delete(_) => Shape::Delete,
            Self::List { .. } => Shape::List,
        }
    }

    /// What a write carries.
    pub fn body(&self) -> Option<&Bytes> {
        match self {
            Self::Put(_, bytes, _) => Some(bytes),
            _ => None,
        }
    }

    pub fn key(&self) -> &str {
        match self {
            Self::Get(key) | Self::GetRange(key, _) | Self::Put(key, ..) | Self::Delete(key) => {
                key.as_str()
            }
            Self::List { prefix, .. } => prefix,
        }
    }

    pub fn failure(&self, message: &str) -> StoreError {
        let kind = match self {
            Self::Put(..) => StoreErrorKind::Indefinite,
            _ => StoreErrorKind::Retry,
        };
        StoreError::new(kind, self.key(), message)
    }
}

impl Answer {
    /// A listing without those keys that the dice say; anything else as it is.
    pub fn stale(self, dice: u64) -> Self {
        match self {
            Self::Keys(keys) => {
                let is_old = |(at, _): &(usize, Key)| dice >> (at % 64) & 1 == 0;
                Self::Keys(keys.into_iter().enumerate().filter(is_old).map(|(_, key)| key).collect())
            }
            answer => answer,
        }
    }

    pub fn object(self) -> Option<Object> {
        match self {
            Self::Object(object) => object,
            other => unreachable!("BUG: {other:?} answers a read"),
        }
    }
}
