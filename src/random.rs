//! The only file that draws randomness: identities of tables, sessions and entries, token keys, back-off jitter.
//!
//! A simulation may put a source of its own in place of the system's, for one thread: [`drive`].

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use crate::error::{Error, Result};

type Source = Rc<dyn Fn() -> u128>;

thread_local! {
    static DRIVEN: RefCell<Option<Source>> = const { RefCell::new(None) };
}

/// While it lives, its thread draws from the source given to [`drive`]; dropped, it puts the one before back.
#[must_use]
pub struct Driven(Option<Source>);

/// Puts `source` in place of the operating system's, for everything that this thread draws until the guard is
/// dropped. Identities and keys are then no better than what it gives, so this is for simulations and tests only.
pub fn drive(source: impl Fn() -> u128 + 'static) -> Driven {
    Driven(DRIVEN.with(|driven| driven.replace(Some(Rc::new(source)))))
}

/// Whether this thread's randomness is driven: then nothing that tells one machine from another may show.
pub fn is_driven() -> bool {
    DRIVEN.with(|driven| driven.borrow().is_some())
}

impl Drop for Driven {
    fn drop(&mut self) {
        DRIVEN.with(|driven| driven.replace(self.0.take()));
    }
}

impl std::fmt::Debug for Driven {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Driven")
    }
}

/// 128 random bits from the operating system.
pub fn bits128() -> Result<u128> {
    if let Some(source) = DRIVEN.with(|driven| driven.borrow().clone()) {
        return Ok(source());
    }
    let mut bytes = [0u8; 16];
    #[expect(clippy::disallowed_methods, reason = "this is the one place that draws randomness")]
    getrandom::fill(&mut bytes)
        .map_err(|e| Error::store("read", "the operating system's random source", e))?;
    Ok(u128::from_be_bytes(bytes))
}

/// A fresh 128-bit identity as 32 lower-case hexadecimal digits.
pub fn identity() -> Result<String> {
    Ok(format!("{:032x}", bits128()?))
}

/// A random part of `pause`, anything from nothing to all of it, so that those who collided do not collide again.
pub fn jitter(pause: Duration) -> Result<Duration> {
    let share = (bits128()? >> 64) as u64 as f64 / u64::MAX as f64;
    Ok(pause.mul_f64(share))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[test]
    fn a_driven_source_serves_its_thread_alone_and_gives_way_in_turn() {
        let outer = drive(|| 7);
        let next = Cell::new(0);
        let inner = drive(move || next.replace(next.get() + 1));
        assert_eq!((bits128().unwrap(), bits128().unwrap()), (0, 1));
        assert!(std::thread::spawn(|| bits128().unwrap() != 2 && !is_driven()).join().unwrap());
        drop(inner);
        assert_eq!(identity().unwrap(), format!("{:032x}", 7));
        drop(outer);
        assert!(!is_driven());
        assert_ne!(bits128().unwrap(), bits128().unwrap());
    }
}
