//! SipHash-2-4-128 of the commonest keys without a buffer.
//!
//! A key of one column is a short head and then its value. Putting the two together in a buffer, only to read it again at
//! once, costs half as much as the hash itself; here the words are put together in registers. Promise: the same digests
//! as [`siphasher`], which does all the rest.

use siphasher::sip128::SipHasher24;

/// The key of the hash, ready for use.
#[derive(Clone, Copy)]
pub(super) struct Sip {
    k0: u64,
    k1: u64,
}

impl Sip {
    pub(super) fn new(hasher: &SipHasher24) -> Self {
        let (k0, k1) = hasher.keys();
        Self { k0, k1 }
    }

    /// The digest of the two bytes `head` and then `body`.
    #[inline]
    pub(super) fn bytes(self, head: [u8; 2], body: &[u8]) -> u128 {
        let head = u64::from(u16::from_le_bytes(head));
        let length = (body.len() as u64).wrapping_add(2) << 56;
        let mut state = self.start();
        let Some((first, rest)) = body.split_first_chunk::<6>() else {
            state.absorb(little(body) << 16 | head | length);
            return state.finish();
        };
        let [a, b, c, d, e, f] = *first;
        state.absorb(u64::from_le_bytes([0, 0, a, b, c, d, e, f]) | head);
        let (words, tail) = rest.as_chunks::<8>();
        for word in words {
            state.absorb(u64::from_le_bytes(*word));
        }
        let tail = match body.last_chunk::<8>() {
            _ if tail.is_empty() => 0,
            // Faster than byte by byte: the last 8 bytes without those that were taken already.
            Some(last) => u64::from_le_bytes(*last) >> (64 - 8 * tail.len()),
            None => little(tail),
        };
        state.absorb(tail | length);
        state.finish()
    }

    /// The digest of the byte `head` and then the 8 little-endian bytes of `value`.
    #[inline]
    pub(super) fn whole(self, head: u8, value: i64) -> u128 {
        let value = value.cast_unsigned();
        let mut state = self.start();
        state.absorb(value << 8 | u64::from(head));
        state.absorb(value >> 56 | 9 << 56);
        state.finish()
    }

    #[inline]
    fn start(self) -> State {
        State {
            v0: self.k0 ^ 0x736f_6d65_7073_6575,
            v1: self.k1 ^ 0x646f_7261_6e64_6f6d ^ 0xee,
            v2: self.k0 ^ 0x6c79_6765_6e65_7261,
            v3: self.k1 ^ 0x7465_6462_7974_6573,
        }
    }
}

/// At most 7 bytes as a number.
fn little(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |word, &byte| word << 8 | u64::from(byte))
}

struct State {
    v0: u64,
    v1: u64,
    v2: u64,
    v3: u64,
}

impl State {
    #[inline(always)]
    fn absorb(&mut self, word: u64) {
        self.v3 ^= word;
        self.round();
        self.round();
        self.v0 ^= word;
    }

    #[inline(always)]
    fn round(&mut self) {
        self.v0 = self.v0.wrapping_add(self.v1);
        self.v2 = self.v2.wrapping_add(self.v3);
        self.v1 = self.v1.rotate_left(13) ^ self.v0;
        self.v3 = self.v3.rotate_left(16) ^ self.v2;
        self.v0 = self.v0.rotate_left(32).wrapping_add(self.v3);
        self.v2 = self.v2.wrapping_add(self.v1);
        self.v1 = self.v1.rotate_left(17) ^ self.v2;
        self.v3 = self.v3.rotate_left(21) ^ self.v0;
        self.v2 = self.v2.rotate_left(32);
    }

    #[inline(always)]
    fn finish(mut self) -> u128 {
        self.v2 ^= 0xee;
        let low = self.squeeze();
        self.v1 ^= 0xdd;
        let high = self.squeeze();
        u128::from(high) << 64 | u128::from(low)
    }

    #[inline(always)]
    fn squeeze(&mut self) -> u64 {
        for _ in 0..4 {
            self.round();
        }
        self.v0 ^ self.v1 ^ self.v2 ^ self.v3
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_digests_are_those_of_the_whole_message(
            keys in any::<(u64, u64)>(),
            head in any::<[u8; 2]>(),
            body in prop::collection::vec(any::<u8>(), 0..300),
            value in any::<i64>(),
        ) {
            let reference = SipHasher24::new_with_keys(keys.0, keys.1);
            let sip = Sip::new(&reference);
            for length in 0..=body.len() {
                let body = &body[..length];
                let expected = reference.hash(&[&head[..], body].concat());
                prop_assert_eq!(sip.bytes(head, body), u128::from(expected));
            }
            let message = [&head[..1], &value.to_le_bytes()].concat();
            prop_assert_eq!(sip.whole(head[0], value), u128::from(reference.hash(&message)));
        }
    }
}
