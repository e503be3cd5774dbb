//! When a step of a batch runs: evaluation of its condition over the steps before it.
//!
//! A condition may only name earlier steps. [`check_batch`] establishes that for a whole batch
//! before its first step runs, so that a malformed batch has no effect at all.
//!
//! `error` means "not ok": it is true for a step that was *skipped* as well as for one that
//! failed. The protocol's text says otherwise, but libSQL's server has always behaved so, and
//! clients chain on it (a `ROLLBACK` that runs if the `COMMIT` was skipped).

use super::HranaVersion;
use super::error::ProtocolError;
use super::request::{Batch, BatchCond};

/// What became of a step that the batch has passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StepOutcome {
    Ok,
    Error,
    /// Its condition was false.
    Skipped,
}

/// Checks every condition of the batch: only earlier steps are named, and `is_autocommit` only
/// in Hrana 3.
pub fn check_batch(batch: &Batch, version: HranaVersion) -> Result<(), ProtocolError> {
    for (step, batch_step) in batch.steps.iter().enumerate() {
        if let Some(condition) = &batch_step.condition {
            check(condition, step, version)?;
        }
    }
    Ok(())
}

fn check(condition: &BatchCond, step: usize, version: HranaVersion) -> Result<(), ProtocolError> {
    match condition {
        BatchCond::Ok { step: named } | BatchCond::Error { step: named } => {
            let named = usize::try_from(*named).map_err(|_| ProtocolError::ConditionStep)?;
            if named < step { Ok(()) } else { Err(ProtocolError::ConditionStep) }
        }
        BatchCond::Not { cond } => check(cond, step, version),
        BatchCond::And { conds } | BatchCond::Or { conds } => {
            conds.iter().try_for_each(|cond| check(cond, step, version))
        }
        BatchCond::IsAutocommit if version < HranaVersion::Hrana3 => {
            Err(ProtocolError::Version { what: "BatchCond of type `is_autocommit`", minimum: HranaVersion::Hrana3 })
        }
        BatchCond::IsAutocommit => Ok(()),
    }
}

/// Whether the step runs. `outcomes` holds one entry for each step before it; naming any other
/// is an error, never a panic, even if [`check_batch`] was forgotten.
pub fn evaluate(
    condition: &BatchCond,
    outcomes: &[StepOutcome],
    is_autocommit: &dyn Fn() -> bool,
) -> Result<bool, ProtocolError> {
    Ok(match condition {
        BatchCond::Ok { step } => outcome(outcomes, *step)? == StepOutcome::Ok,
        BatchCond::Error { step } => outcome(outcomes, *step)? != StepOutcome::Ok,
        BatchCond::Not { cond } => !evaluate(cond, outcomes, is_autocommit)?,
        BatchCond::And { conds } => {
            for cond in conds {
                if !evaluate(cond, outcomes, is_autocommit)? {
                    return Ok(false);
                }
            }
            true
        }
        BatchCond::Or { conds } => {
            for cond in conds {
                if evaluate(cond, outcomes, is_autocommit)? {
                    return Ok(true);
                }
            }
            false
        }
        BatchCond::IsAutocommit => is_autocommit(),
    })
}

fn outcome(outcomes: &[StepOutcome], step: u32) -> Result<StepOutcome, ProtocolError> {
    let index = usize::try_from(step).map_err(|_| ProtocolError::ConditionStep)?;
    outcomes.get(index).copied().ok_or(ProtocolError::ConditionStep)
}

#[cfg(test)]
mod tests {
    use super::StepOutcome::{Error, Ok as Success, Skipped};
    use super::*;
    use crate::hrana::request::{BatchStep, SqlSource, Stmt};

    fn ok(step: u32) -> BatchCond {
        BatchCond::Ok { step }
    }

    fn error(step: u32) -> BatchCond {
        BatchCond::Error { step }
    }

    fn not(cond: BatchCond) -> BatchCond {
        BatchCond::Not { cond: Box::new(cond) }
    }

    fn holds(condition: &BatchCond, outcomes: &[StepOutcome]) -> bool {
        evaluate(condition, outcomes, &|| panic!("is_autocommit was not asked for")).unwrap()
    }

    fn batch(conditions: Vec<Option<BatchCond>>) -> Batch {
        let stmt = Stmt { sql: SqlSource::default(), args: vec![], named_args: vec![], want_rows: true, replication_index: None };
        let steps = conditions.into_iter().map(|condition| BatchStep { condition, stmt: stmt.clone() }).collect();
        Batch { steps, replication_index: None }
    }

    #[test]
    fn ok_and_error_are_each_others_opposite_for_every_outcome() {
        for (outcome, is_ok) in [(Success, true), (Error, false), (Skipped, false)] {
            assert_eq!(holds(&ok(0), &[outcome]), is_ok);
            assert_eq!(holds(&error(0), &[outcome]), !is_ok);
            assert_eq!(holds(&not(ok(0)), &[outcome]), !is_ok);
        }
    }

    #[test]
    fn and_and_or_of_nothing_are_true_and_false() {
        assert!(holds(&BatchCond::And { conds: vec![] }, &[]));
        assert!(!holds(&BatchCond::Or { conds: vec![] }, &[]));
    }

    #[test]
    fn and_and_or_combine() {
        let outcomes = [Success, Error, Skipped];
        for (conds, all, any) in [
            (vec![ok(0), ok(1)], false, true),
            (vec![ok(0), error(1), error(2)], true, true),
            (vec![ok(1), ok(2)], false, false),
        ] {
            assert_eq!(holds(&BatchCond::And { conds: conds.clone() }, &outcomes), all);
            assert_eq!(holds(&BatchCond::Or { conds }, &outcomes), any);
        }
    }

    #[test]
    fn is_autocommit_asks_the_connection() {
        for answer in [true, false] {
            assert_eq!(evaluate(&BatchCond::IsAutocommit, &[], &|| answer), Ok(answer));
        }
    }

    #[test]
    fn a_step_may_name_only_earlier_steps() {
        let version = HranaVersion::Hrana2;
        assert_eq!(check_batch(&batch(vec![None, Some(ok(0)), Some(error(1))]), version), Ok(()));
        for conditions in [
            vec![Some(ok(0))],
            vec![None, Some(ok(1))],
            vec![None, Some(error(2)), None],
            vec![None, Some(ok(u32::MAX))],
            vec![None, Some(BatchCond::And { conds: vec![ok(0), not(error(1))] })],
        ] {
            let error = check_batch(&batch(conditions), version).unwrap_err();
            assert_eq!(error.to_string(), "Invalid reference to step in a batch condition");
        }
        assert_eq!(evaluate(&ok(1), &[Success], &|| true), Err(ProtocolError::ConditionStep));
    }

    #[test]
    fn is_autocommit_needs_hrana_3_wherever_it_stands() {
        let nested = BatchCond::Or { conds: vec![not(BatchCond::IsAutocommit)] };
        for condition in [BatchCond::IsAutocommit, nested] {
            let batch = batch(vec![Some(condition)]);
            assert_eq!(check_batch(&batch, HranaVersion::Hrana3), Ok(()));
            assert_eq!(
                check_batch(&batch, HranaVersion::Hrana2).unwrap_err().to_string(),
                "BatchCond of type `is_autocommit` is only supported in protocol version hrana3 and higher"
            );
        }
    }
}
