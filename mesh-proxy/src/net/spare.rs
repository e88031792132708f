//! Buffers that no connection uses at the moment, kept by each thread: most connections are idle, and hold none then.

use std::cell::RefCell;

use crate::tls::session::{MOST_PLAIN, MOST_RECORD, OVERHEAD};

/// Most that are kept of each size.
const MOST: usize = 8;

/// How much a buffer holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Size {
    /// A head as most are, and a small body.
    Small,
    /// What one record of TLS carries.
    Medium,
    /// Bulk.
    Large,
    /// A small one, sealed.
    ShortRecord,
    /// Any record of TLS.
    Record,
    /// A large one, sealed: as many full records as it takes.
    Records,
}

impl Size {
    const ALL: [Self; 6] =
        [Self::Small, Self::Medium, Self::Large, Self::ShortRecord, Self::Record, Self::Records];

    /// In bytes.
    pub(crate) const fn bytes(self) -> usize {
        match self {
            Self::Small => 4 * 1024,
            Self::Medium => MOST_PLAIN,
            Self::Large => 4 * MOST_PLAIN,
            Self::ShortRecord => Self::Small.bytes() + OVERHEAD,
            Self::Record => MOST_RECORD,
            Self::Records => 4 * (MOST_PLAIN + OVERHEAD),
        }
    }

    /// Where so many sealed bytes have room.
    pub(crate) fn of_records(bytes: usize) -> Self {
        let sizes = [Self::ShortRecord, Self::Record];
        sizes.into_iter().find(|size| bytes <= size.bytes()).unwrap_or(Self::Records)
    }
}

thread_local! {
    static SPARE: RefCell<[Vec<Vec<u8>>; Size::ALL.len()]> =
        const { RefCell::new([const { Vec::new() }; Size::ALL.len()]) };
}

/// An empty buffer with room for this much.
pub(crate) fn take(size: Size) -> Vec<u8> {
    let mut buffer = kept(size).unwrap_or_else(|| Vec::with_capacity(size.bytes()));
    buffer.clear();
    buffer
}

/// A buffer of just this size, with anything in it: what others of the size left there is not wiped.
pub(crate) fn whole(size: Size) -> Vec<u8> {
    let mut buffer = kept(size).unwrap_or_default();
    buffer.resize(size.bytes(), 0);
    buffer
}

fn kept(size: Size) -> Option<Vec<u8>> {
    SPARE.with_borrow_mut(|kept| kept.get_mut(size as usize).and_then(Vec::pop))
}

/// Keeps a buffer for others, unless there are enough, or it is of another size.
pub(crate) fn put(buffer: Vec<u8>) {
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
            put(again);
            let whole = whole(size);
            assert_eq!((whole.as_ptr(), whole.len()), (place, size.bytes()), "{size:?}");
        }
    }

    #[test]
    fn no_more_are_kept_than_are_of_use() {
        let kept = || SPARE.with_borrow(|kept| kept.iter().map(Vec::len).sum::<usize>());
        let before = kept();
        put(Vec::with_capacity(100));
        assert_eq!(kept(), before, "of no size");
        (0..3 * MOST).map(|_| Vec::with_capacity(Size::Medium.bytes())).for_each(put);
        assert!(kept() <= before + MOST, "{}", kept());
    }
}
