//! The only file that draws randomness: identities of tables, sessions and entries, token keys, back-off jitter.

use std::time::Duration;

use crate::error::{Error, Result};

/// 128 random bits from the operating system.
pub fn bits128() -> Result<u128> {
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
