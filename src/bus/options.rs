//! The trailing `a{sv}` of methods.

use super::errors::{Error, Result};
use std::collections::HashMap;
use zbus::{OwnedFd, OwnedVariant, Variant};

/// Options as they come. Each known one is taken out; one that is left was not understood, and a
/// caller that asks for something unknown must not get something else.
pub struct Options(HashMap<String, OwnedVariant>);

impl Options {
    /// From the argument of a method.
    #[must_use]
    pub fn new(options: HashMap<String, OwnedVariant>) -> Options {
        Options(options)
    }

    /// A switch; off when it is not given.
    ///
    /// # Errors
    /// When it is no boolean.
    pub fn switch(&mut self, name: &str) -> Result<bool> {
        match self.0.remove(name).map(Variant::from) {
            None => Ok(false),
            Some(Variant::Bool(on)) => Ok(on),
            Some(_) => Err(Error::invalid(format!("the option `{name}` must be a boolean"))),
        }
    }

    /// A number, where it is given.
    ///
    /// # Errors
    /// When it is no unsigned number of 64 bits.
    pub fn number(&mut self, name: &str) -> Result<Option<u64>> {
        match self.0.remove(name).map(Variant::from) {
            None => Ok(None),
            Some(Variant::U64(number)) => Ok(Some(number)),
            Some(_) => Err(Error::invalid(format!("the option `{name}` must be of type t"))),
        }
    }

    /// A descriptor, where it is given.
    ///
    /// # Errors
    /// When it is none.
    pub fn descriptor(&mut self, name: &str) -> Result<Option<OwnedFd>> {
        match self.0.remove(name).map(Variant::from) {
            None => Ok(None),
            Some(Variant::Fd(descriptor)) => Ok(Some(descriptor.into())),
            Some(_) => Err(Error::invalid(format!("the option `{name}` must be a descriptor"))),
        }
    }

    /// Where `wait` is all there may be.
    ///
    /// # Errors
    /// As [`Options::switch`] and [`Options::done`].
    pub fn only_wait(options: HashMap<String, OwnedVariant>) -> Result<bool> {
        let mut options = Options::new(options);
        let wait = options.switch("wait")?;
        options.done()?;
        Ok(wait)
    }

    /// Nothing may be left.
    ///
    /// # Errors
    /// Names an option that is.
    pub fn done(self) -> Result<()> {
        match self.0.keys().min() {
            None => Ok(()),
            Some(name) => Err(Error::invalid(format!("there is no option `{name}`"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(name: &str, value: OwnedVariant) -> Options {
        Options::new(HashMap::from([(name.to_owned(), value)]))
    }

    #[test]
    fn options_are_read_by_type() {
        assert!(options("wait", true.into()).switch("wait").unwrap());
        assert!(!options("wait", true.into()).switch("once").unwrap());
        assert!(options("wait", 1u32.into()).switch("wait").is_err());
        assert_eq!(options("n", 7u64.into()).number("n").unwrap(), Some(7));
        assert!(options("n", 7u32.into()).number("n").is_err());
        assert!(options("fd", 7u32.into()).descriptor("fd").is_err());
    }

    #[test]
    fn an_unknown_option_is_refused() {
        let mut options = options("wiat", true.into());
        options.switch("wait").unwrap();
        assert!(options.done().is_err());
    }
}
