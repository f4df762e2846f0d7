//! Memory to read into, used again.
//!
//! Every read of a large file needs a place for its bytes for a moment. Taken fresh from the system each time, that
//! place costs more than the read: every page of it is handed out, zeroed and taken back. So a few buffers are kept.
//!
//! Promises: bytes are those that were read, whatever a buffer held before; what is kept idle stays below [`Buffers::KEPT`];
//! a buffer is handed out again only after the last of its readers let go of it.

use bytes::Bytes;
use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

/// Reads below this many bytes get memory of their own: allocators are good at that.
const SMALL: usize = 32 << 10;

/// Buffers are multiples of this, so that reads of about the same length fit each other's.
const GRAIN: usize = 64 << 10;

/// Buffers that are kept. Clones keep the same ones.
#[derive(Debug, Clone, Default)]
pub(super) struct Buffers(Arc<Mutex<Idle>>);

/// Idle buffers, the one that was let go last at the end. All their bytes are initialised: to fill one again zeroes nothing.
#[derive(Debug, Default)]
struct Idle {
    buffers: VecDeque<Vec<u8>>,
    bytes: usize,
}

/// A buffer on loan, `length` bytes of which count.
struct Lent {
    buffer: Vec<u8>,
    length: usize,
    home: Buffers,
}

impl Buffers {
    /// The most bytes that are kept idle.
    pub(super) const KEPT: usize = 16 << 20;

    /// `length` bytes, written by `fill`, which must write them all.
    pub(super) fn filled(
        &self,
        length: usize,
        fill: impl FnOnce(&mut [u8]) -> io::Result<()>,
    ) -> io::Result<Bytes> {
        if length < SMALL {
            let mut bytes = vec![0; length];
            fill(&mut bytes)?;
            return Ok(bytes.into());
        }
        let buffer = self.lock().take(length).unwrap_or_else(|| vec![0; length.next_multiple_of(GRAIN)]);
        let mut lent = Lent { buffer, length, home: self.clone() };
        fill(lent.buffer.get_mut(..length).unwrap_or_default())?;
        Ok(Bytes::from_owner(lent))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Idle> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Idle {
    /// The smallest buffer that is long enough, and not much longer: a short read must not hold on to a long buffer.
    fn take(&mut self, length: usize) -> Option<Vec<u8>> {
        let fits = |buffer: &Vec<u8>| (length..=length.saturating_mul(2).max(GRAIN)).contains(&buffer.len());
        let fitting = self.buffers.iter().enumerate().filter(|(_, buffer)| fits(buffer));
        // Of equal ones the last: most of it may still be in the processor's cache.
        let (at, _) = fitting.rev().min_by_key(|(_, buffer)| buffer.len())?;
        let buffer = self.buffers.remove(at)?;
        self.bytes -= buffer.len();
        Some(buffer)
    }

    /// Keeps `buffer`, and lets go of those that were not used for longest if they are too many.
    fn keep(&mut self, buffer: Vec<u8>) {
        self.bytes += buffer.len();
        self.buffers.push_back(buffer);
        while self.bytes > Buffers::KEPT {
            let Some(oldest) = self.buffers.pop_front() else { break };
            self.bytes -= oldest.len();
        }
    }
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        self.buffer.get(..self.length).unwrap_or_default()
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let buffer = std::mem::take(&mut self.buffer);
        self.home.lock().keep(buffer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(buffers: &Buffers, length: usize, byte: u8) -> Bytes {
        let fill = |bytes: &mut [u8]| {
            bytes.fill(byte);
            Ok(())
        };
        buffers.filled(length, fill).unwrap()
    }

    #[test]
    fn a_buffer_is_used_again_once_nobody_reads_it() {
        let buffers = Buffers::default();
        let first = read(&buffers, 1 << 20, 1);
        let place = first.as_ptr();
        let part = first.slice(5..9);
        drop(first);
        assert_ne!(read(&buffers, 1 << 20, 2).as_ptr(), place);
        assert_eq!(part, &[1; 4][..]);
        drop(part);
        assert_eq!(read(&buffers, (1 << 20) - 7, 3).as_ptr(), place);
    }

    #[test]
    fn a_read_that_fails_gives_its_buffer_back() {
        let buffers = Buffers::default();
        assert!(buffers.filled(SMALL, |_| Err(io::Error::other("planted"))).is_err());
        assert_eq!(buffers.lock().buffers.len(), 1);
    }

    proptest! {
        #[test]
        fn bytes_are_those_that_were_read_and_little_is_kept(
            steps in prop::collection::vec((0usize..200, any::<u8>(), any::<prop::sample::Index>(), any::<bool>()), 1..60),
        ) {
            let buffers = Buffers::default();
            let mut held: Vec<(Bytes, usize, u8)> = Vec::new();
            for (length, byte, which, drops) in steps {
                // Up to 8 MiB, many of them short.
                let length = length * length * length;
                held.push((read(&buffers, length, byte), length, byte));
                if drops {
                    held.swap_remove(which.index(held.len()));
                }
                for (bytes, length, byte) in &held {
                    prop_assert_eq!(bytes.len(), *length);
                    prop_assert!([bytes.first(), bytes.last()].into_iter().flatten().all(|found| found == byte));
                }
                let idle = buffers.lock();
                prop_assert!(idle.bytes <= Buffers::KEPT);
                prop_assert_eq!(idle.bytes, idle.buffers.iter().map(Vec::len).sum::<usize>());
            }
        }
    }
}
