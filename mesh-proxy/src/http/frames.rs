//! Frames of HTTP/2 as they pass by (RFC 9113 section 4.1), without I/O: where they begin and end, and what the caller's
//! cost. The library below bounds their memory; this bounds their number.

use std::time::{Duration, Instant};

use mesh_core::reason::Reason;

const HEAD: usize = 9;
/// Bytes of a payload that are looked at: GOAWAY has its error behind four others.
const LOOK: usize = 8;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;

/// A frame whose head has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    kind: u8,
    flags: u8,
    length: u32,
    stream: u32,
    /// The error of RST_STREAM and GOAWAY.
    error: u32,
}

/// Follows the frames in one direction of a connection.
#[derive(Debug, Default)]
pub(super) struct Scanner {
    head: [u8; HEAD + LOOK],
    have: usize,
    /// Bytes to pass over before the next head.
    skip: u32,
}

impl Scanner {
    /// Begins behind `skip` bytes.
    pub(super) fn after(skip: u32) -> Self {
        Self { skip, ..Self::default() }
    }

    /// Looks at the bytes that come next and tells of each frame once.
    pub(super) fn scan(&mut self, mut bytes: &[u8], mut tell: impl FnMut(Frame)) {
        while !bytes.is_empty() {
            let passed = bytes.len().min(self.skip as usize);
            self.skip -= passed as u32;
            bytes = bytes.get(passed..).unwrap_or_default();
            let wanted = self.wanted() - self.have;
            let (taken, rest) = bytes.split_at_checked(wanted).unwrap_or((bytes, &[]));
            if let Some(room) = self.head.get_mut(self.have..self.have + taken.len()) {
                room.copy_from_slice(taken);
            }
            self.have += taken.len();
            bytes = rest;
            if self.have >= HEAD && self.have == self.wanted() {
                let frame = self.frame();
                self.skip = frame.length.saturating_sub((self.have - HEAD) as u32);
                (self.head, self.have) = ([0; HEAD + LOOK], 0);
                tell(frame);
            }
        }
    }

    /// Bytes of the frame that are needed to tell of it.
    fn wanted(&self) -> usize {
        let [a, b, c, kind, ..] = self.head;
        if self.have < HEAD || !matches!(kind, RST_STREAM | GOAWAY) {
            return HEAD;
        }
        let length = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
        HEAD + length.min(LOOK)
    }

    fn frame(&self) -> Frame {
        let [a, b, c, kind, flags, s0, s1, s2, s3, p0, p1, p2, p3, p4, p5, p6, p7] = self.head;
        let error = match kind {
            RST_STREAM => u32::from_be_bytes([p0, p1, p2, p3]),
            GOAWAY => u32::from_be_bytes([p4, p5, p6, p7]),
            _ => 0,
        };
        let (length, stream) = (u32::from_be_bytes([0, a, b, c]), u32::from_be_bytes([s0, s1, s2, s3]));
        Frame { kind, flags, length, stream, error }
    }
}

impl Frame {
    /// The stream that it begins, or that it ends with trailers. None: it does neither.
    pub(super) fn head_of(self) -> Option<u32> {
        (self.kind == HEADERS).then_some(self.stream)
    }
}

/// Why a frame that this side sends refuses something. None: it does not, or not for a fault of the peer.
pub(super) fn refusal(sent: Frame) -> Option<Reason> {
    match (sent.kind, sent.error) {
        // PROTOCOL_ERROR, FLOW_CONTROL_ERROR, FRAME_SIZE_ERROR.
        (RST_STREAM | GOAWAY, 1 | 3 | 6) => Some(Reason::BadRequest),
        // STREAM_CLOSED, COMPRESSION_ERROR.
        (GOAWAY, 5 | 9) => Some(Reason::BadRequest),
        // REFUSED_STREAM, ENHANCE_YOUR_CALM.
        (RST_STREAM | GOAWAY, 7 | 11) => Some(Reason::LimitExceeded),
        _ => None,
    }
}

/// Why a frame that this side sends to a server ends the connection for a fault of the server. None: it does not. Where
/// one stream is ended, its request tells.
pub(super) fn complaint(sent: Frame) -> Option<Reason> {
    match (sent.kind, sent.error) {
        // PROTOCOL_ERROR, FLOW_CONTROL_ERROR, STREAM_CLOSED, FRAME_SIZE_ERROR, COMPRESSION_ERROR.
        (GOAWAY, 1 | 3 | 5 | 6 | 9) => Some(Reason::UpstreamProtocolError),
        // ENHANCE_YOUR_CALM.
        (GOAWAY, 11) => Some(Reason::LimitExceeded),
        _ => None,
    }
}

/// What a caller may spend on frames that bring nothing: what it earns by being answered, and so much every second.
#[derive(Debug)]
pub(super) struct Budget {
    left: u32,
    since: Instant,
}

/// What may be saved.
const SAVINGS: u32 = 4000;
/// What every second brings.
const PER_SECOND: u32 = 1000;

impl Budget {
    pub(super) fn new(now: Instant) -> Self {
        Self { left: SAVINGS, since: now }
    }

    /// Accounts for a frame that went to the caller.
    pub(super) fn sent(&mut self, frame: Frame) {
        if matches!(frame.kind, DATA | HEADERS) {
            self.left = self.left.saturating_add(4).min(SAVINGS);
        }
    }

    /// Accounts for a frame that came from the caller. False: it has no more to spend.
    pub(super) fn came(&mut self, frame: Frame, now: impl FnOnce() -> Instant) -> bool {
        let cost = match frame.kind {
            // Requests and their bodies are bounded by streams and windows; what continues a head, by its size.
            HEADERS | CONTINUATION => return true,
            DATA if frame.length > 0 || frame.flags & END_STREAM != 0 => return true,
            // A stream that is given up costs more than it did its caller.
            RST_STREAM | SETTINGS => 4,
            _ => 1,
        };
        if self.left < cost {
            // The clock is asked only when it matters.
            let now = now();
            let passed = now.saturating_duration_since(self.since).min(Duration::from_secs(60));
            let earned = passed.as_millis() as u32 * PER_SECOND / 1000;
            self.left = self.left.saturating_add(earned).min(SAVINGS);
            self.since = now;
        }
        let left = self.left.checked_sub(cost);
        self.left = left.unwrap_or(0);
        left.is_some()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, flags, 0, 0, 0, 1], payload].concat()
    }

    #[test]
    fn heads_tell_their_streams() {
        let seen = frames(&[&bytes(HEADERS, 0, b"x"), &bytes(DATA, 0, b"x")], 0);
        let heads: Vec<_> = seen.into_iter().map(Frame::head_of).collect();
        assert_eq!(heads, [Some(1), None]);
    }

    fn frames(parts: &[&[u8]], skip: u32) -> Vec<Frame> {
        let (mut scanner, mut seen) = (Scanner::after(skip), Vec::new());
        for part in parts {
            scanner.scan(part, |frame| seen.push(frame));
        }
        seen
    }

    #[test]
    fn frames_are_seen_with_their_errors() {
        let all = [
            b"preface!".to_vec(),
            bytes(SETTINGS, 0, &[0; 12]),
            bytes(DATA, END_STREAM, b""),
            bytes(RST_STREAM, 0, &[0, 0, 0, 7]),
            bytes(GOAWAY, 0, &[0, 0, 0, 9, 0, 0, 0, 11, b'x']),
            bytes(GOAWAY, 0, &[0, 0]),
            bytes(DATA, 0, &[1; 300]),
        ]
        .concat();
        let seen = frames(&[&all], 8);
        let kinds: Vec<_> = seen.iter().map(|f| (f.kind, f.length, f.error)).collect();
        assert_eq!(
            kinds,
            [
                (SETTINGS, 12, 0),
                (DATA, 0, 0),
                (RST_STREAM, 4, 7),
                (GOAWAY, 9, 11),
                (GOAWAY, 2, 0),
                (DATA, 300, 0)
            ]
        );
        let refused: Vec<_> = seen.into_iter().map(refusal).collect();
        let limit = Some(Reason::LimitExceeded);
        assert_eq!(refused, [None, None, limit, limit, None, None]);
        let to_server = |error| frames(&[&bytes(GOAWAY, 0, &[0, 0, 0, 0, 0, 0, 0, error])], 0).pop();
        let complaints = [0, 1, 9, 11].map(|error| to_server(error).and_then(complaint));
        let broken = Some(Reason::UpstreamProtocolError);
        assert_eq!(complaints, [None, broken, broken, limit]);
        let reset = Frame { kind: RST_STREAM, flags: 0, length: 4, stream: 1, error: 1 };
        assert_eq!(complaint(reset), None, "its request tells");
    }

    #[test]
    fn answers_and_time_earn_what_is_spent() {
        let start = Instant::now();
        let frame = |kind, length| Frame { kind, flags: 0, length, stream: 1, error: 0 };
        let mut budget = Budget::new(start);
        let spent = |budget: &mut Budget, kind, at| {
            (0..100_000).take_while(|_| budget.came(frame(kind, 0), || at)).count()
        };
        assert_eq!(spent(&mut budget, 6, start), 4000, "pings");
        assert_eq!(spent(&mut budget, 6, start + Duration::from_secs(1)), 1000);
        assert_eq!(spent(&mut budget, RST_STREAM, start + Duration::from_secs(2)), 250);
        assert_eq!(spent(&mut budget, DATA, start + Duration::from_secs(100)), 4000, "empty frames");
        budget.sent(frame(HEADERS, 10));
        assert_eq!(spent(&mut budget, RST_STREAM, start + Duration::from_secs(100)), 1);
        assert_eq!(spent(&mut budget, HEADERS, start), 100_000);
        assert!(budget.came(frame(DATA, 1), || start));
    }

    proptest! {
        /// However the bytes are cut, the frames are the same.
        #[test]
        fn cuts_do_not_matter(all in proptest::collection::vec(any::<u8>(), 0..400), cuts in proptest::collection::vec(0..400_usize, 0..20)) {
            let small: Vec<u8> = all.chunks(11).flat_map(|c| [&[0, 0], c].concat()).collect();
            for all in [all, small] {
                let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (all.len() + 1)).collect();
                cuts.sort_unstable();
                let (mut parts, mut rest, mut at) = (Vec::new(), &all[..], 0);
                for cut in cuts {
                    let (part, after) = rest.split_at(cut - at);
                    parts.push(part);
                    (rest, at) = (after, cut);
                }
                parts.push(rest);
                prop_assert_eq!(frames(&parts, 24), frames(&[&all], 24));
            }
        }
    }
}
