//! What a peer on the private socket wants to hear.
//!
//! On a bus the bus holds back what nobody asked for. Here nobody is in between, so a peer is told
//! everything, unless it says what it wants in the way it would there: `AddMatch` and `RemoveMatch` of
//! `org.freedesktop.DBus` (D-Bus Specification, Message Bus Messages). Of a thousand processes that are
//! stopped, whoever waits for the jobs needs a thousand signals of six thousand.
//!
//! Of a rule its type, interface and member are looked at. What it says besides is for the peer: it is
//! told at least what it wants. The announcements of ObjectManager are not held back, they are for those
//! who asked for an object.

use super::Context;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use zbus::message::Type;
use zbus::{MatchRule, OwnedMatchRule, fdo, interface};

/// Where a peer says it.
pub const PATH: &str = "/org/freedesktop/DBus";

/// More rules than a bus lets anybody have by default are nobody's who means well.
const MOST: usize = 512;

/// A signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    PropertiesChanged,
    JobNew,
    JobRemoved,
    ReloadFinished,
    EventsAdded,
    Exited,
}

impl Signal {
    const ALL: [Signal; 6] = [
        Signal::PropertiesChanged,
        Signal::JobNew,
        Signal::JobRemoved,
        Signal::ReloadFinished,
        Signal::EventsAdded,
        Signal::Exited,
    ];

    pub fn interface(self) -> &'static str {
        match self {
            Signal::PropertiesChanged => "org.freedesktop.DBus.Properties",
            Signal::Exited => "org.provost.Provost1.Process",
            _ => "org.provost.Provost1.Manager",
        }
    }

    pub fn member(self) -> &'static str {
        match self {
            Signal::PropertiesChanged => "PropertiesChanged",
            Signal::JobNew => "JobNew",
            Signal::JobRemoved => "JobRemoved",
            Signal::ReloadFinished => "ReloadFinished",
            Signal::EventsAdded => "EventsAdded",
            Signal::Exited => "Exited",
        }
    }

    fn bit(self) -> u8 {
        1 << self as u8
    }

    fn is_meant_by(self, rule: &MatchRule<'_>) -> bool {
        rule.msg_type().is_none_or(|wanted| wanted == Type::Signal)
            && rule.interface().is_none_or(|wanted| wanted == self.interface())
            && rule.member().is_none_or(|wanted| wanted == self.member())
    }
}

/// What one peer wants; everything, until it says something.
pub struct Matches {
    rules: Mutex<Vec<MatchRule<'static>>>,
    wanted: AtomicU8,
}

impl Default for Matches {
    fn default() -> Matches {
        Matches { rules: Mutex::default(), wanted: AtomicU8::new(u8::MAX) }
    }
}

impl Matches {
    pub fn want(&self, signal: Signal) -> bool {
        self.wanted.load(Ordering::Relaxed) & signal.bit() != 0
    }

    fn add(&self, rule: MatchRule<'static>) -> fdo::Result<()> {
        let mut rules = self.rules.lock().unwrap_or_else(PoisonError::into_inner);
        if rules.len() == MOST {
            return Err(fdo::Error::LimitsExceeded(format!(
                "there are {MOST} match rules already"
            )));
        }
        rules.push(rule);
        self.take_in(&rules);
        Ok(())
    }

    fn remove(&self, rule: &MatchRule<'_>) -> fdo::Result<()> {
        let mut rules = self.rules.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(at) = rules.iter().position(|known| known == rule) else {
            return Err(fdo::Error::MatchRuleNotFound(format!("there is no match rule {rule}")));
        };
        rules.swap_remove(at);
        self.take_in(&rules);
        Ok(())
    }

    fn take_in(&self, rules: &[MatchRule<'_>]) {
        let is_meant = |signal: &Signal| rules.iter().any(|rule| signal.is_meant_by(rule));
        let bits = Signal::ALL.into_iter().filter(is_meant).map(Signal::bit);
        self.wanted.store(bits.fold(0, |all, bit| all | bit), Ordering::Relaxed);
    }
}

/// The part of a message bus that a peer finds here.
pub struct MatchObject(pub Arc<Context>);

// In the order in which they come, also before what comes after them: nothing of what a call brings
// about is missed by whoever says before it what it wants to hear.
#[interface(name = "org.freedesktop.DBus", spawn = false, introspection_docs = false)]
impl MatchObject {
    /// What knows only buses, such as busctl(1), asks for a name first. Nobody is here who could use it.
    async fn hello(&self) -> &'static str {
        ":1.1"
    }

    async fn add_match(&self, rule: OwnedMatchRule) -> fdo::Result<()> {
        self.0.matches.add(rule.into_inner())
    }

    async fn remove_match(&self, rule: OwnedMatchRule) -> fdo::Result<()> {
        self.0.matches.remove(&rule)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(text: &str) -> MatchRule<'static> {
        MatchRule::try_from(text).unwrap().into_owned()
    }

    fn wanted(matches: &Matches) -> Vec<Signal> {
        Signal::ALL.into_iter().filter(|signal| matches.want(*signal)).collect()
    }

    #[test]
    fn who_says_nothing_wants_everything() {
        assert_eq!(wanted(&Matches::default()), Signal::ALL);
    }

    #[test]
    fn rules_add_up_and_are_taken_away_one_by_one() {
        let matches = Matches::default();
        let removed = rule("type='signal',member='JobRemoved'");
        matches.add(removed.clone()).unwrap();
        matches.add(removed.clone()).unwrap();
        assert_eq!(wanted(&matches), [Signal::JobRemoved]);
        let process = rule("interface='org.provost.Provost1.Process'");
        matches.add(process.clone()).unwrap();
        assert_eq!(wanted(&matches), [Signal::JobRemoved, Signal::Exited]);
        matches.remove(&removed).unwrap();
        assert_eq!(wanted(&matches), [Signal::JobRemoved, Signal::Exited], "there were two");
        matches.remove(&removed).unwrap();
        matches.remove(&process).unwrap();
        assert_eq!(wanted(&matches), [], "nothing, and not everything again");
        assert!(matches!(matches.remove(&process), Err(fdo::Error::MatchRuleNotFound(_))));
    }

    #[test]
    fn what_is_not_looked_at_holds_nothing_back() {
        let matches = Matches::default();
        matches.add(rule("type='method_call'")).unwrap();
        assert_eq!(wanted(&matches), []);
        matches.add(rule("path='/org/provost/Provost1/process/a',sender=':1.7'")).unwrap();
        assert_eq!(wanted(&matches), Signal::ALL);
    }

    #[test]
    fn there_is_an_end_to_it() {
        let matches = Matches::default();
        for _ in 0..MOST {
            matches.add(rule("type='signal'")).unwrap();
        }
        let more = matches.add(rule("type='signal'"));
        assert!(matches!(more, Err(fdo::Error::LimitsExceeded(_))));
    }
}
