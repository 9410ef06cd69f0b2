//! Parses the faults of the command line: rules and rates.

use std::time::Duration;

use nvio_driver::spec::opcode::{admin, nvm};
use nvio_driver::spec::{EventType, Status};
use nvio_emulator::{DeviceFault, Fault, Rates, Rule};

use crate::units::{number, time};

/// Names of commands in rules; `true` for admin commands.
const COMMANDS: [(&str, bool, u8); 22] = [
    ("flush", false, nvm::FLUSH),
    ("write", false, nvm::WRITE),
    ("read", false, nvm::READ),
    ("compare", false, nvm::COMPARE),
    ("write-zeroes", false, nvm::WRITE_ZEROES),
    ("deallocate", false, nvm::DATASET_MANAGEMENT),
    ("verify", false, nvm::VERIFY),
    ("copy", false, nvm::COPY),
    ("delete-sq", true, admin::DELETE_IO_SQ),
    ("create-sq", true, admin::CREATE_IO_SQ),
    ("get-log-page", true, admin::GET_LOG_PAGE),
    ("delete-cq", true, admin::DELETE_IO_CQ),
    ("create-cq", true, admin::CREATE_IO_CQ),
    ("identify", true, admin::IDENTIFY),
    ("abort", true, admin::ABORT),
    ("set-features", true, admin::SET_FEATURES),
    ("get-features", true, admin::GET_FEATURES),
    ("async-event", true, admin::ASYNC_EVENT_REQUEST),
    ("ns-management", true, admin::NAMESPACE_MANAGEMENT),
    ("ns-attachment", true, admin::NAMESPACE_ATTACHMENT),
    ("doorbell-buffer", true, admin::DOORBELL_BUFFER_CONFIG),
    ("format", true, admin::FORMAT_NVM),
];

/// Parses a rule: `FAULT[,CONDITION]...`, as the help of `--fault` describes it.
///
/// # Errors
/// A message that says which part is wrong.
pub fn rule(text: &str) -> Result<Rule, String> {
    let mut parts = text.split(',');
    let fault = fault(parts.next().unwrap_or_default())?;
    let conditions: Vec<(&str, Option<&str>)> = parts.map(key_and_value).collect();
    let is_admin = is_admin(&conditions)?;
    let mut rule = if is_admin { Rule::admin(fault) } else { Rule::new(fault) };
    for (key, value) in conditions {
        rule = match (key, value) {
            ("admin", None) => rule,
            ("op", Some(op)) => rule.opcode(match command(op) {
                Some((_, opcode)) => opcode,
                None => number(op)?,
            }),
            ("nsid", Some(nsid)) => rule.nsid(number(nsid)?),
            ("lba", Some(_)) if is_admin => {
                return Err("admin commands have no LBAs".to_owned());
            }
            ("lba", Some(range)) => rule.lbas(lbas(range)?),
            ("nth", Some(nth)) => rule.nth(from_one(nth)?),
            ("from", Some(nth)) => rule.from(from_one(nth)?),
            ("times", Some(times)) => rule.times(from_one(times)?),
            _ => {
                return Err(format!(
                    "{key:?} is not a condition; conditions are admin, op=, nsid=, lba=, nth=, from= and times="
                ));
            }
        };
    }
    Ok(rule)
}

fn key_and_value(part: &str) -> (&str, Option<&str>) {
    part.split_once('=').map_or((part, None), |(key, value)| (key, Some(value)))
}

fn command(name: &str) -> Option<(bool, u8)> {
    let known = COMMANDS.iter().find(|(known, ..)| *known == name)?;
    Some((known.1, known.2))
}

/// Returns true if the conditions of a rule select admin commands.
fn is_admin(conditions: &[(&str, Option<&str>)]) -> Result<bool, String> {
    let said = conditions.contains(&("admin", None));
    let ops = conditions.iter().filter(|(key, _)| *key == "op").filter_map(|(_, value)| *value);
    let mut named = ops.filter_map(command).map(|(is_admin, _)| is_admin);
    match named.next() {
        Some(false) if said => Err("it is not an admin command".to_owned()),
        Some(is_admin) => Ok(is_admin),
        None => Ok(said),
    }
}

/// Parses one LBA, or the first and the last of a range.
fn lbas(text: &str) -> Result<std::ops::Range<u64>, String> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last): (u64, u64) = (number(first)?, number(last)?);
    match last.checked_add(1) {
        Some(end) if first <= last => Ok(first..end),
        _ => Err(format!("{text:?} is not a range of LBAs")),
    }
}

fn from_one(text: &str) -> Result<u64, String> {
    match number(text)? {
        0 => Err("the count starts at 1".to_owned()),
        number => Ok(number),
    }
}

fn fault(text: &str) -> Result<Fault, String> {
    let device = |fault| Ok(Fault::Device(fault));
    match key_and_value(text) {
        ("status", Some(status)) => Ok(Fault::Status(self::status(status)?)),
        ("late", Some(by)) => Ok(Fault::Late(time(by)?)),
        ("lost", None) => Ok(Fault::Lost),
        ("not-abortable", None) => Ok(Fault::NotAbortable),
        ("duplicate", None) => Ok(Fault::Duplicate),
        ("stale-id", None) => Ok(Fault::StaleId),
        ("unknown-id", Some(id)) => Ok(Fault::UnknownId(number(id)?)),
        ("old-version", None) => Ok(Fault::OldVersion),
        ("fatal", None) => device(DeviceFault::Fatal),
        ("stuck-ready", Some(by)) => device(DeviceFault::StuckReady(time(by)?)),
        ("stuck-not-ready", Some(by)) => device(DeviceFault::StuckNotReady(time(by)?)),
        ("removed", None) => device(DeviceFault::Removed),
        ("event", Some(event)) => device(self::event(event)?),
        _ => Err(format!(
            "{text:?} is not a fault; faults are status=, late=, lost, not-abortable, duplicate, \
             stale-id, unknown-id=, old-version, fatal, stuck-ready=, stuck-not-ready=, removed and \
             event="
        )),
    }
}

/// Parses a status by name, or by type and code.
fn status(text: &str) -> Result<Status, String> {
    let Some((kind, code)) = text.split_once('/') else {
        return Status::named(text).ok_or_else(|| {
            format!("{text:?} is not a status; write a name such as unrecovered-read-error, or TYPE/CODE")
        });
    };
    let kind: u8 = number(kind)?;
    if kind > 7 {
        Err("a status code type is 0 to 7".to_owned())
    } else {
        Ok(Status::new(kind, number(code)?))
    }
}

fn event(text: &str) -> Result<DeviceFault, String> {
    let parts: Vec<&str> = text.split('/').collect();
    let &[kind, info, log] = &parts[..] else {
        return Err("an event is TYPE/INFORMATION/LOG".to_owned());
    };
    let kind: u8 = number(kind)?;
    if kind > 7 {
        return Err("the type of an event is 0 to 7".to_owned());
    }
    Ok(DeviceFault::Event { kind: EventType(kind), info: number(info)?, log: number(log)? })
}

/// The rate of a fault, in parts per million.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    kind: usize,
    ppm: u32,
}

/// A fault by name, and the field of its rate.
type Kind = (&'static str, fn(&mut Rates) -> &mut u32);

const KINDS: [Kind; 13] = [
    ("status", |rates| &mut rates.status),
    ("late", |rates| &mut rates.late),
    ("lost", |rates| &mut rates.lost),
    ("not-abortable", |rates| &mut rates.not_abortable),
    ("duplicate", |rates| &mut rates.duplicate),
    ("stale-id", |rates| &mut rates.stale_id),
    ("unknown-id", |rates| &mut rates.unknown_id),
    ("old-version", |rates| &mut rates.old_version),
    ("fatal", |rates| &mut rates.fatal),
    ("stuck-ready", |rates| &mut rates.stuck_ready),
    ("stuck-not-ready", |rates| &mut rates.stuck_not_ready),
    ("removed", |rates| &mut rates.removed),
    ("event", |rates| &mut rates.event),
];

/// Parses a rate: `KIND=PPM`.
///
/// # Errors
/// A message that says which part is wrong.
pub fn rate(text: &str) -> Result<Rate, String> {
    let (name, ppm) = text.split_once('=').ok_or("a rate is FAULT=PARTS-PER-MILLION")?;
    let kind = KINDS.iter().position(|(known, _)| *known == name);
    let kind = kind.ok_or_else(|| {
        format!("{name:?} is not a fault; faults are {}", KINDS.map(|(name, _)| name).join(", "))
    })?;
    match number(ppm)? {
        ppm @ 0..=1_000_000 => Ok(Rate { kind, ppm }),
        _ => Err("a rate is 0 to 1000000 parts per million".to_owned()),
    }
}

/// Combines all rates. Returns `None` if there are none.
pub fn rates(of: &[Rate], late_up_to: Duration, stuck_up_to: Duration) -> Option<Rates> {
    let mut rates = Rates { late_up_to, stuck_up_to, ..Rates::default() };
    for rate in of {
        *KINDS[rate.kind].1(&mut rates) = rate.ppm;
    }
    of.iter().any(|rate| rate.ppm != 0).then_some(rates)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nvio_driver::spec::status;

    /// Compares rules by their debug text, because a rule has no accessors.
    fn same(text: &str, rule: Rule) {
        assert_eq!(format!("{:?}", self::rule(text).unwrap()), format!("{rule:?}"), "{text}");
    }

    #[test]
    fn rules_are_parsed() {
        let unread = Fault::Status(status::UNRECOVERED_READ_ERROR);
        let lbas = Rule::new(unread).opcode(2).nsid(1).lbas(1000..1008);
        same("status=unrecovered-read-error,op=read,nsid=1,lba=1000-1007", lbas);
        same("status=UNRECOVERED_READ_ERROR,lba=5", Rule::new(unread).lbas(5..6));
        same("status=2/0x81", Rule::new(unread));
        same("lost,nth=3", Rule::new(Fault::Lost).nth(3));
        same("late=5ms,op=0xc0,from=2,times=4", {
            Rule::new(Fault::Late(Duration::from_millis(5))).opcode(0xc0).from(2).times(4)
        });
        same("not-abortable", Rule::new(Fault::NotAbortable));
        same("unknown-id=0xffff", Rule::new(Fault::UnknownId(65_535)));
        same("old-version,op=write,nth=7", Rule::new(Fault::OldVersion).opcode(1).nth(7));
        // Admin commands, by name or by the word `admin`.
        same("duplicate,op=identify", Rule::admin(Fault::Duplicate).opcode(6));
        same("stale-id,admin", Rule::admin(Fault::StaleId));
        same(
            "removed,op=0x7f,admin",
            Rule::admin(Fault::Device(DeviceFault::Removed)).opcode(0x7f),
        );
        let event = DeviceFault::Event { kind: EventType::NOTICE, info: 0, log: 4 };
        same("event=2/0/4,op=flush", Rule::new(Fault::Device(event)).opcode(0));
        let stuck = DeviceFault::StuckReady(Duration::from_secs(1));
        same("stuck-ready=1s", Rule::new(Fault::Device(stuck)));
    }

    #[test]
    fn text_that_is_not_a_rule_is_refused() {
        for (text, part) in [
            ("", "is not a fault"),
            ("frob", "is not a fault"),
            ("lost=1", "is not a fault"),
            ("late", "is not a fault"),
            ("late=5", "ns, us, ms or s"),
            ("status=frob", "is not a status"),
            ("status=8/0", "0 to 7"),
            ("status=0/256", "too large"),
            ("event=1/2", "TYPE/INFORMATION/LOG"),
            ("event=8/0/0", "0 to 7"),
            ("unknown-id=65536", "too large"),
            ("lost,", "is not a condition"),
            ("lost,op", "is not a condition"),
            ("lost,op=frob", "is not a number"),
            ("lost,lba=7-5", "is not a range"),
            ("lost,lba=18446744073709551615", "is not a range"),
            ("lost,nth=0", "starts at 1"),
            ("lost,op=read,admin", "not an admin command"),
            ("lost,admin,lba=5", "no LBAs"),
            ("lost,op=identify,lba=5", "no LBAs"),
        ] {
            let told = rule(text).unwrap_err();
            assert!(told.contains(part), "{text}: {told}");
        }
    }

    #[test]
    fn every_rate_has_its_place() {
        let of: Vec<Rate> = (1..)
            .zip(KINDS)
            .map(|(ppm, (name, _))| rate(&format!("{name}={ppm}")).unwrap())
            .collect();
        let (late_up_to, stuck_up_to) = (Duration::from_secs(1), Duration::from_secs(2));
        let expected = Rates {
            status: 1,
            late: 2,
            lost: 3,
            not_abortable: 4,
            duplicate: 5,
            stale_id: 6,
            unknown_id: 7,
            old_version: 8,
            fatal: 9,
            stuck_ready: 10,
            stuck_not_ready: 11,
            removed: 12,
            event: 13,
            late_up_to,
            stuck_up_to,
        };
        assert_eq!(rates(&of, late_up_to, stuck_up_to), Some(expected));
        assert_eq!(rates(&[], late_up_to, stuck_up_to), None);
        assert_eq!(rates(&[rate("lost=0").unwrap()], late_up_to, stuck_up_to), None);
        for text in ["lost", "frob=1", "lost=1000001", "lost=x"] {
            assert!(rate(text).is_err(), "{text}");
        }
    }
}
