//! Buffers that no connection uses at the moment, kept by each thread: most connections are idle, and hold none then.

use std::cell::RefCell;

/// Most that are kept of each size.
const MOST: usize = 8;

/// How much a buffer holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Size {
    /// A head as most are, and a small body.
    Small,
    /// A record of TLS.
    Record,
    /// Bulk.
    Large,
}

impl Size {
    const ALL: [Self; 3] = [Self::Small, Self::Record, Self::Large];

    /// In bytes.
    pub(crate) const fn bytes(self) -> usize {
        match self {
            Self::Small => 4 * 1024,
            Self::Record => 16 * 1024,
            Self::Large => 64 * 1024,
        }
    }
}

thread_local! {
    static SPARE: RefCell<[Vec<Vec<u8>>; Size::ALL.len()]> =
        const { RefCell::new([const { Vec::new() }; Size::ALL.len()]) };
}

/// An empty buffer with room for this much.
pub(crate) fn take(size: Size) -> Vec<u8> {
    let kept = SPARE.with_borrow_mut(|kept| kept.get_mut(size as usize).and_then(Vec::pop));
    kept.unwrap_or_else(|| Vec::with_capacity(size.bytes()))
}

/// Keeps a buffer for others, unless there are enough, or it is of another size.
pub(crate) fn put(mut buffer: Vec<u8>) {
    buffer.clear();
    let Some(size) = Size::ALL.into_iter().find(|size| size.bytes() == buffer.capacity()) else { return };
    SPARE.with_borrow_mut(|kept| {
        if let Some(kept) = kept.get_mut(size as usize)
            && kept.len() < MOST
        {
            kept.push(buffer);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_given_back_is_taken_again() {
        for size in Size::ALL {
            let mut buffer = take(size);
            assert_eq!((buffer.len(), buffer.capacity()), (0, size.bytes()));
            buffer.push(1);
            let place = buffer.as_ptr();
            put(buffer);
            let again = take(size);
            assert_eq!((again.as_ptr(), again.len()), (place, 0), "{size:?}");
        }
    }

    #[test]
    fn no_more_are_kept_than_are_of_use() {
        let kept = || SPARE.with_borrow(|kept| kept.iter().map(Vec::len).sum::<usize>());
        let before = kept();
        put(Vec::with_capacity(100));
        assert_eq!(kept(), before, "of no size");
        (0..3 * MOST).map(|_| Vec::with_capacity(Size::Record.bytes())).for_each(put);
        assert!(kept() <= before + MOST, "{}", kept());
    }
}
