//! Copying in pieces. The C library copies from some 2 KiB on with one instruction (`rep movsb`), which on some
//! processors (AMD Zen 3 and 4) is several times slower than a loop where source and destination are not aligned alike;
//! behind a record's head of 5 bytes they never are.

use std::io::IoSlice;

/// What every C library copies in a loop, in bytes.
const PIECE: usize = 2 * 1024;
/// Pieces that are written in one go: no TLS connection takes more at once.
const MOST: usize = 64 * 1024 / PIECE + 2;

/// Copies a piece of `from` after the other.
pub(crate) fn append(from: &[u8], to: impl FnMut(&[u8])) {
    from.chunks(PIECE).for_each(to);
}

/// Calls `write` with `bufs` cut into pieces, or with as many of them as one call takes.
pub(super) fn write<T>(bufs: &[IoSlice<'_>], write: impl FnOnce(&[IoSlice<'_>]) -> T) -> T {
    if bufs.iter().all(|buf| buf.len() <= PIECE) {
        return write(bufs);
    }
    let mut pieces = [IoSlice::new(&[]); MOST];
    let all = bufs.iter().flat_map(|buf| buf.chunks(PIECE));
    let used = pieces.iter_mut().zip(all).map(|(place, piece)| *place = IoSlice::new(piece)).count();
    write(pieces.get(..used).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_small_and_leave_nothing_out() {
        let bytes: Vec<u8> = (0..100_000_u32).map(|i| i as u8).collect();
        for (first, second) in [(0, 10), (10, 0), (100, 2048), (5000, 0), (5000, 30_000), (1, 99_999)] {
            let bufs = [IoSlice::new(&bytes[..first]), IoSlice::new(&bytes[first..first + second])];
            let (count, all) = write(&bufs, |pieces| {
                assert!(pieces.iter().all(|piece| piece.len() <= PIECE));
                (pieces.len(), pieces.iter().flat_map(|piece| piece.to_vec()).collect::<Vec<_>>())
            });
            assert_eq!(all, &bytes[..all.len()], "{first} {second}");
            assert!(all.len() == first + second || count == MOST, "{first} {second}: {}", all.len());
        }
        let mut copy = Vec::new();
        append(&bytes, |piece| copy.extend_from_slice(piece));
        assert_eq!(copy, bytes);
    }
}
