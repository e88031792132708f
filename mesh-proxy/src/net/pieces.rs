//! Copying in pieces. The C library copies from some 2 KiB on with one instruction (`rep movsb`), which on some
//! processors (AMD Zen 3 and 4) is several times slower than a loop where source and destination are not aligned alike;
//! behind a record's head of 5 bytes they never are.

/// What every C library copies in a loop, in bytes.
const PIECE: usize = 2 * 1024;

/// Copies a piece of `from` after the other.
pub(crate) fn append(from: &[u8], to: impl FnMut(&[u8])) {
    from.chunks(PIECE).for_each(to);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_small_and_leave_nothing_out() {
        for length in [0, 1, PIECE, PIECE + 1, 100_000] {
            let bytes: Vec<u8> = (0..length).map(|i| i as u8).collect();
            let mut copy = Vec::new();
            append(&bytes, |piece| {
                assert!(piece.len() <= PIECE);
                copy.extend_from_slice(piece);
            });
            assert_eq!(copy, bytes);
        }
    }
}
