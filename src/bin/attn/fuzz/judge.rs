//! Whether a case ended as it should: an answer that is right, or the error that it deserves.

use wgpu_attention::{DeviceCaps, Engine, Error, Operand, Plan, Problem};

use super::case::{Call, Case, Kind};
use super::compare::Expected;
use super::fault::variant;
use super::mods;
use super::run::{self, Trouble};
use super::wild;

/// How a case ended, when it ended well.
#[derive(Clone, Debug, PartialEq)]
pub enum Ending {
    /// With a right answer, whose largest error is this share of what is allowed.
    Answer(f64),
    /// With an answer that nothing can be compared with.
    Unchecked,
    /// With a plan, since running it would take too much time or memory.
    Planned,
    /// With an error that it deserves, of this variant.
    Refused(String),
}

/// Runs a case and judges it; an error says what is wrong with the library.
pub fn judge(engine: &Engine, case: &Case) -> Result<Ending, String> {
    let planned = plan(case, engine.caps());
    if let Err(error) = &planned {
        same_everywhere(engine, case, error)?;
        is_deserved(case, error, true)?;
        return Ok(Ending::Refused(variant(error)));
    }
    let problem = Problem::new(&case.descriptor).map_err(|error| error.to_string())?;
    if !wild::feasible(&problem) {
        return Ok(Ending::Planned);
    }
    match run::run(engine, case) {
        Err(Trouble::Fault(what)) => Err(what),
        Err(Trouble::Refused(error)) => {
            is_deserved(case, &error, false)?;
            Ok(Ending::Refused(variant(&error)))
        }
        Ok(answer) => {
            if let Kind::Faulty(faults) = &case.kind {
                return Err(format!("gave an answer in spite of {faults:?}"));
            }
            match Expected::new(&case.descriptor, &problem, &case.within_lengths())? {
                None => Ok(Ending::Unchecked),
                Some(expected) => expected.check(&problem, &answer).map(Ending::Answer),
            }
        }
    }
}

/// The way of a case as far as no device is needed.
pub fn plan(case: &Case, caps: &DeviceCaps) -> Result<Plan, Error> {
    let problem = Problem::new(&case.descriptor)?;
    if matches!(case.call, Call::Host) {
        let captures = case.data.captures();
        case.data.host(&captures).validate(&problem)?;
    }
    let plan = Plan::new(&problem, caps)?;
    // Its Display must not panic either.
    let _ = plan.to_string();
    Ok(plan)
}

/// Every way to call gives the same error.
fn same_everywhere(engine: &Engine, case: &Case, expected: &Error) -> Result<(), String> {
    let expected = format!("{expected:?}");
    let ends_same = |way: &str, error: Option<Error>| match error {
        Some(error) if format!("{error:?}") == expected => Ok(()),
        Some(error) => Err(format!("{way} gives {error:?}, but the pure path {expected}")),
        None => Err(format!("{way} works, but the pure path gives {expected}")),
    };
    let captures = case.data.captures();
    if matches!(case.call, Call::Host) {
        return ends_same(
            "Engine::attention",
            engine.attention(&case.descriptor, &case.data.host(&captures)).err(),
        );
    }
    ends_same("Engine::plan", engine.plan(&case.descriptor).err())?;
    ends_same("Engine::prepare", engine.prepare(&case.descriptor).err())
}

/// Whether a case deserves this error; `pure` says that it came before any device was asked.
pub fn is_deserved(case: &Case, error: &Error, pure: bool) -> Result<(), String> {
    if let Error::Limit { required, limit, .. } = error
        && pure
    {
        let low = required <= limit;
        return if low {
            Err(format!("no limit is passed: {error:?}"))
        } else {
            Ok(())
        };
    }
    match &case.kind {
        Kind::Faulty(faults) if faults.iter().any(|fault| fault.deserves(error)) => Ok(()),
        Kind::Faulty(faults) => Err(format!("{error:?} instead of {faults:?}")),
        Kind::Valid => Err(format!("a valid request is refused: {error:?}")),
        Kind::Wild if pure => Ok(()),
        Kind::Wild => match error {
            // Only a compiler knows of broken functions, and only the buffers of operands that the data lack.
            Error::Mod { .. } if mods::twins(&case.descriptor.mods).is_none() => Ok(()),
            Error::MissingOperand { operand } if lacks(case, *operand) => Ok(()),
            Error::BufferTooSmall { .. } if matches!(case.call, Call::Bound(_)) => Ok(()),
            error => Err(format!("the pure path allows it, but the engine gives {error:?}")),
        },
    }
}

fn lacks(case: &Case, operand: Operand) -> bool {
    case.data.get(operand).is_none()
}
