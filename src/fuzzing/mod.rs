//! What the fuzzer calls, one function a target: bytes in, and a panic where a promise does not hold.
//!
//! Compiled for fuzzing and for tests only. The crate `fuzz/` wraps each function; what it found is kept in
//! `testdata/hostile/fuzz/` and run again by the tests here.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a panic is how a finding is told"
)]

mod ledger;
mod parquet;
mod run;
mod text;

pub use self::parquet::parquet;
pub use ledger::{checkpoint, manifest};
pub use run::token_run;
pub use text::{ndjson, text};

/// Choices taken from the front of the fuzzer's bytes; zeros when they are used up.
#[derive(Debug)]
struct Choices<'a>(&'a [u8]);

impl<'a> Choices<'a> {
    fn byte(&mut self) -> u8 {
        self.bytes(1).first().copied().unwrap_or(0)
    }

    fn one_in(&mut self, many: u8) -> bool {
        self.byte().is_multiple_of(many)
    }

    fn number(&mut self) -> u64 {
        let mut number = [0; 8];
        let bytes = self.bytes(8);
        for (to, from) in number.iter_mut().zip(bytes) {
            *to = *from;
        }
        u64::from_le_bytes(number)
    }

    /// A number of those at which things break.
    fn edge(&mut self) -> u64 {
        match self.byte() {
            small @ 0..=199 => u64::from(small % 12),
            200..=209 => u64::from(u32::MAX),
            210..=219 => 1 << 62,
            220..=229 => u64::MAX,
            230..=239 => u64::MAX - 1,
            _ => self.number(),
        }
    }

    fn below(&mut self, end: u64) -> u64 {
        (u64::from(self.byte()) << 8 | u64::from(self.byte())) % end.max(1)
    }

    fn bytes(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    /// One target: its name, and what it does with an input.
    type Target = (&'static str, fn(&[u8]));

    const TARGETS: [Target; 6] = [
        ("token_run", super::token_run),
        ("manifest", super::manifest),
        ("checkpoint", super::checkpoint),
        ("ndjson", super::ndjson),
        ("parquet", super::parquet),
        ("text", super::text),
    ];

    #[test]
    fn what_was_found_once_holds_now() {
        let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/hostile/fuzz");
        for (name, target) in TARGETS {
            target(b"");
            let Ok(files) = std::fs::read_dir(kept.join(name)) else { continue };
            for file in files {
                let path = file.unwrap().path();
                println!("{}", path.display());
                target(&std::fs::read(&path).unwrap());
            }
        }
    }

    #[test]
    fn random_inputs_break_no_promise() {
        let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
        for round in 0..300u64 {
            let mut bytes = Vec::new();
            for _ in 0..round * 3 {
                seed = seed.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(round | 1);
                bytes.push((seed >> 56) as u8);
            }
            for (_, target) in TARGETS {
                target(&bytes);
            }
        }
    }
}
