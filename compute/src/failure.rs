//! What a failure at the bucket means to a client: each error of the crates below gets its [`Fault`].
//!
//! | at the bucket | fault | why |
//! |---|---|---|
//! | an object fails its check or the store's, or is named by another one and missing | corrupt | asking again reads the same bytes; the message names the object |
//! | no answer, throttled, no room, lost races | retry | it passes |
//! | 401, 403, no bucket, answers against S3's rules | retry | nothing was done, and the same request works once whoever runs the node has seen to it; the message says that it takes a person |
//! | a create, a fork or a restore whose answer never came | indefinite | it may exist by now |
//!
//! The last but one is no class of its own: such errors prove nothing about earlier requests, come and go with
//! rotated credentials, and leave the client with the same choice as an outage does.

use pageserver::fold::FoldFailure;
use pageserver::fork::ForkFailure;
use pageserver::history::PastError;
use tenant::lifecycle::ForkRefused;
use tenant::name::Name;
use tenant::registry::{ChildError, CreateError, DeleteError, ListError, ResolveError, SwapHeadError};
use tracing::info;
use walstore::envelope::Corrupt;
use walstore::register::RecordError;
use walstore::seal::SealError;
use walstore::store::{StoreError, StoreErrorKind};

use crate::error::{Fault, ServerError};

/// What has happened when a head has changed under somebody who owned it.
const ELSEWHERE: &str =
    "another node has taken the database over meanwhile, or it was deleted or restored to another state";
/// Of a fold that came to nothing.
const UNFOLDED: &str = "the last commits of the database are not in the bucket in the form that this needs";

impl From<Corrupt> for ServerError {
    fn from(corrupt: Corrupt) -> Self {
        Self::new(Fault::Corrupt, corrupt.to_string())
    }
}

impl From<StoreError> for ServerError {
    fn from(error: StoreError) -> Self {
        let error = match RecordError::from(error) {
            RecordError::Corrupt(corrupt) => return corrupt.into(),
            RecordError::Store(error) => error,
        };
        let text = if error.is_permanent() {
            format!("the bucket refuses this node, which whoever runs it has to look at; nothing was done: {error}")
        } else {
            format!("the bucket does not answer as it should; nothing was done; try again later: {error}")
        };
        Self::new(Fault::Retry, text)
    }
}

impl From<RecordError> for ServerError {
    fn from(error: RecordError) -> Self {
        match error {
            RecordError::Store(error) => error.into(),
            RecordError::Corrupt(corrupt) => corrupt.into(),
        }
    }
}

impl From<SealError> for ServerError {
    fn from(error: SealError) -> Self {
        match error {
            SealError::Record(error) => error.into(),
            // The message begins with the slot's key.
            hole @ SealError::Hole(_) => Self::new(Fault::Corrupt, hole.to_string()),
            stale @ SealError::Stale(_) => Self::new(Fault::Retry, stale.to_string()),
        }
    }
}

impl From<ResolveError> for ServerError {
    fn from(error: ResolveError) -> Self {
        let text = error.to_string();
        match error {
            ResolveError::Record { source, .. } => Self { message: text, ..source.into() },
            ResolveError::Unfinished { .. } | ResolveError::Busy { .. } => Self::new(Fault::Retry, text),
        }
    }
}

impl From<SwapHeadError> for ServerError {
    fn from(error: SwapHeadError) -> Self {
        match error {
            SwapHeadError::Record(error) => error.into(),
            // Both messages begin with the head's key. A head that follows from the one in the bucket and breaks
            // an invariant follows from a wrong one.
            broken @ (SwapHeadError::Invariant { .. } | SwapHeadError::Gone { .. }) => {
                Self::new(Fault::Corrupt, broken.to_string())
            }
        }
    }
}

impl From<CreateError> for ServerError {
    fn from(error: CreateError) -> Self {
        let text = error.to_string();
        let fault = match error {
            CreateError::Settings { .. } => Fault::Invalid,
            CreateError::AlreadyExists { .. } | CreateError::DeletedMeanwhile { .. } => Fault::Conflict,
            CreateError::Busy { .. } => Fault::Retry,
            CreateError::Record { source, .. } if is_unknown(&source) => {
                return Self::new(Fault::Indefinite, format!("{text}; look whether it exists before you create it again"));
            }
            CreateError::Record { source, .. } => return Self { message: text, ..source.into() },
            CreateError::Resolve(error) => return error.into(),
        };
        Self::new(fault, text)
    }
}

/// Whether what was sent to the bucket may have arrived, or arrive yet.
pub fn is_unknown(error: &RecordError) -> bool {
    matches!(error, RecordError::Store(StoreError { kind: StoreErrorKind::Indefinite, .. }))
}

impl From<DeleteError> for ServerError {
    fn from(error: DeleteError) -> Self {
        let text = error.to_string();
        match error {
            DeleteError::NotOwner { .. } | DeleteError::Conflict { .. } => {
                info!(%error, "a client is told of a delete that failed");
                Self::new(Fault::Fenced, format!("{ELSEWHERE}; it was not deleted; ask again"))
            }
            DeleteError::Due(error) => Self { message: text, ..error.into() },
            DeleteError::Head(error) => Self { message: text, ..error.into() },
        }
    }
}

/// What a client is told of a fold that failed. What that is inside goes to the log.
pub fn fold_words(database: &Name, failure: &FoldFailure) -> String {
    let words = match failure {
        FoldFailure::Lost(_) => ELSEWHERE,
        FoldFailure::NotFolded(_) | FoldFailure::Endless | FoldFailure::CutOff => UNFOLDED,
        told => return told.to_string(),
    };
    info!(%database, %failure, "a client is told of a fold that failed");
    words.into()
}

/// What a client is told instead of what a fork that failed says of itself.
fn fork_words(failure: &ForkFailure) -> Option<String> {
    Some(match failure {
        ForkFailure::Lost(_) | ForkFailure::Fold(FoldFailure::Lost(_)) => {
            format!("{ELSEWHERE}; nothing was done; ask again")
        }
        ForkFailure::Fold(FoldFailure::NotFolded(_) | FoldFailure::Endless | FoldFailure::CutOff)
        | ForkFailure::NotFolded(_) => format!("{UNFOLDED}; try again"),
        ForkFailure::Restless => "others change the database under every try; try again".into(),
        _ => return None,
    })
}

impl From<ForkFailure> for ServerError {
    fn from(error: ForkFailure) -> Self {
        let words = fork_words(&error);
        if words.is_some() {
            info!(%error, "a client is told that a fork or restore failed");
        }
        let text = words.unwrap_or_else(|| error.to_string());
        match error {
            ForkFailure::Refused(ForkRefused::NotDeleted { .. }) => Self::new(Fault::Conflict, text),
            ForkFailure::Refused(_) | ForkFailure::TooManyPoints(_) => Self::new(Fault::Invalid, text),
            ForkFailure::Past(PastError::Record(error)) => error.into(),
            ForkFailure::Past(PastError::NoRoom(_)) => Self::new(Fault::Retry, text),
            ForkFailure::Past(_) => Self::new(Fault::Invalid, text),
            ForkFailure::Fold(FoldFailure::Record(error)) => error.into(),
            ForkFailure::Fold(FoldFailure::Lost(_)) => Self::new(Fault::Fenced, text),
            ForkFailure::Fold(FoldFailure::Plan(_)) => Self::new(Fault::Corrupt, text),
            ForkFailure::Fold(failure) if failure.is_refusal() => Self::new(Fault::Invalid, text),
            ForkFailure::Fold(_) => Self::new(Fault::Retry, text),
            ForkFailure::Name(error) => error.into(),
            ForkFailure::Child(ChildError::Record(source)) | ForkFailure::Swap(SwapHeadError::Record(source))
                if is_unknown(&source) =>
            {
                let text = format!("it is not known whether this was done; look before you ask for it again: {text}");
                Self::new(Fault::Indefinite, text)
            }
            ForkFailure::Child(ChildError::Record(error)) | ForkFailure::Record(error) => error.into(),
            ForkFailure::Child(ChildError::Invariant(_)) => Self::new(Fault::Corrupt, text),
            ForkFailure::Swap(error) => error.into(),
            ForkFailure::NotSwung(_) => Self::new(Fault::Indefinite, text),
            ForkFailure::Child(ChildError::Undone { .. }) | ForkFailure::NotFolded(_) | ForkFailure::Restless => {
                Self::new(Fault::Retry, text)
            }
            ForkFailure::Lost(_) => Self::new(Fault::Fenced, text),
        }
    }
}

impl From<ListError> for ServerError {
    fn from(ListError(error): ListError) -> Self {
        error.into()
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;
    use tenant::lifecycle::NotFolded;
    use walstore::id::DatabaseId;

    use super::*;

    const KEY: &str = "some/object";

    fn corrupt() -> RecordError {
        Corrupt::new("checksum").at(KEY).into()
    }

    fn store(kind: StoreErrorKind) -> RecordError {
        StoreError::new(kind, KEY, "the store's words").into()
    }

    fn name() -> Name {
        Name::parse("app").unwrap()
    }

    /// Every way in which an error of a record reaches a client.
    fn wrapped(error: &RecordError) -> Vec<ServerError> {
        let resolve = || ResolveError::Record { name: name(), source: error.clone() };
        vec![
            error.clone().into(),
            SealError::Record(error.clone()).into(),
            resolve().into(),
            SwapHeadError::Record(error.clone()).into(),
            CreateError::Resolve(resolve()).into(),
            CreateError::Record { name: name(), source: error.clone() }.into(),
            DeleteError::Head(SwapHeadError::Record(error.clone())).into(),
            ListError::from(error.clone()).into(),
        ]
    }

    #[test]
    fn corruption_is_told_as_such_wherever_it_was_met_and_names_the_object() {
        let missing = [
            ServerError::from(SealError::Hole(KEY.into())),
            SwapHeadError::Gone { key: KEY.into() }.into(),
            SwapHeadError::Invariant { key: KEY.into(), broken: "x".into() }.into(),
        ];
        for error in wrapped(&corrupt()).into_iter().chain(missing) {
            assert_eq!((error.fault, error.fault.status()), (Fault::Corrupt, StatusCode::INTERNAL_SERVER_ERROR), "{error}");
            assert_eq!(error.fault.retry_after_seconds(), None, "asking again does not help");
            assert!(error.message.contains(KEY), "{error}");
        }
    }

    #[test]
    fn damage_that_the_store_notices_is_corruption_too() {
        let damaged = StoreError::new(StoreErrorKind::Corrupt, KEY, "its file is too short");
        let direct = [ServerError::from(damaged.clone()), DeleteError::Due(damaged.clone()).into()];
        for error in wrapped(&damaged.into()).into_iter().chain(direct) {
            assert_eq!(error.fault, Fault::Corrupt, "{error}");
            assert!(error.message.contains(KEY) && error.message.contains("too short"), "{error}");
        }
    }

    #[test]
    fn what_passes_and_what_a_person_has_to_see_to_is_unavailable_and_told_apart_in_words() {
        use StoreErrorKind::{Denied, Full, Invalid, Missing, Retry};
        for (kind, is_permanent) in [(Retry, false), (Full, false), (Denied, true), (Missing, true), (Invalid, true)] {
            for error in wrapped(&store(kind)) {
                assert_eq!(error.fault, Fault::Retry, "{kind:?}: {error}");
                assert!(error.message.contains("the store's words"), "{error}");
            }
            let words = ServerError::from(store(kind)).message;
            assert_eq!(words.contains("whoever runs it"), is_permanent, "{words}");
        }
    }

    #[test]
    fn who_has_lost_a_database_is_told_so_without_words_of_the_inside() {
        let database = DatabaseId::from_bytes([7; 16]);
        let inside = NotFolded { database, folded: None, last: None };
        for (failure, words) in [
            (ForkFailure::NotFolded(inside), UNFOLDED),
            (ForkFailure::Fold(FoldFailure::NotFolded(inside)), UNFOLDED),
            (ForkFailure::Restless, "try again"),
        ] {
            let told = ServerError::from(failure).message;
            assert!(told.contains(words) && !told.contains("None") && !told.contains("fold"), "{told}");
        }
        assert_eq!(fold_words(&name(), &FoldFailure::NotFolded(inside)), UNFOLDED);
        assert!(fold_words(&name(), &FoldFailure::TooManyForks).contains("forks of this database"));
    }

    #[test]
    fn what_was_made_without_an_answer_is_of_unknown_outcome_but_an_open_is_not() {
        let source = || store(StoreErrorKind::Indefinite);
        for error in [
            ServerError::from(CreateError::Record { name: name(), source: source() }),
            ForkFailure::Child(source().into()).into(),
            ForkFailure::Swap(source().into()).into(),
        ] {
            assert_eq!(error.fault, Fault::Indefinite, "{error}");
            assert!(!error.message.contains("nothing was done"), "{error}");
        }
        // Ownership that may or may not have been won changes nothing that a client sees.
        let error = ServerError::from(SwapHeadError::Record(store(StoreErrorKind::Indefinite)));
        assert_eq!(error.fault, Fault::Retry);
    }
}
