//! An open loop: requests at a fixed rate, whose latency counts from when each was due, not from when it could be sent.
//! A slow answer so counts against all that had to wait for it (coordinated omission).
//!
//! One blocking thread a connection, for the sleeps of a thread are precise to microseconds.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};

use super::Target;
use crate::gate;
use crate::http1::{head_length, request, status_and_length};
use crate::outcome::{Outcome, percentile};

/// How long one answer may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Runs the loop and reports.
pub(crate) fn run(target: &Target, bytes: usize, rate: f64) -> Result<()> {
    ensure!(rate > 0.0 && rate.is_finite(), "the rate must be more than 0");
    // Linux ends a thread's sleep up to 50 us late, to save power; new threads take this over from us.
    std::fs::write("/proc/self/timerslack_ns", "1").context("cannot ask for precise sleeps")?;
    let request = request(&target.host, bytes);
    let mut connections = Vec::with_capacity(target.connections);
    for _ in 0..target.connections {
        let mut connection = Connection::open(target)?;
        connection.exchange(&request, bytes)?;
        connections.push(connection);
    }
    gate::wait_for_start()?;
    // A moment for all threads to stand ready.
    let start = Instant::now() + Duration::from_millis(20);
    let gap = Duration::from_secs_f64(target.connections as f64 / rate);
    let seen: Vec<Result<Paced>> = std::thread::scope(|scope| {
        let clients: Vec<_> = connections
            .iter_mut()
            .enumerate()
            .map(|(index, connection)| {
                let first = start + gap.mul_f64(index as f64 / target.connections as f64);
                let request = &request;
                scope.spawn(move || {
                    one_client(first, gap, start + target.seconds, || connection.exchange(request, bytes))
                })
            })
            .collect();
        clients.into_iter().map(|client| client.join().map_err(|_| anyhow!("a client died"))).collect()
    });
    let mut all = Paced::default();
    for paced in seen {
        let paced = paced?;
        all.outcome.add(paced.outcome);
        all.late.extend(paced.late);
    }
    all.late.sort_unstable();
    let mut told = all.outcome.into_json(start.elapsed());
    told["late_p99_us"] = percentile(&all.late, 0.99).into();
    gate::report(&told)
}

/// What one client saw.
#[derive(Default)]
struct Paced {
    outcome: Outcome,
    /// Nanoseconds by which requests left late though their connection was free: the client's own doing.
    late: Vec<u64>,
}

/// Exchanges at `first` and every `gap` after it, until `end`; gives up at the first failure.
fn one_client(
    first: Instant,
    gap: Duration,
    end: Instant,
    mut exchange: impl FnMut() -> Result<()>,
) -> Paced {
    let mut paced = Paced::default();
    let mut due = first;
    while due < end {
        let now = Instant::now();
        if now < due {
            std::thread::sleep(due - now);
            paced.late.push(u64::try_from(due.elapsed().as_nanos()).unwrap_or(u64::MAX));
        }
        if exchange().is_err() {
            paced.outcome.failed();
            break;
        }
        paced.outcome.passed(due.elapsed());
        due += gap;
    }
    paced
}

struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    fn open(target: &Target) -> Result<Self> {
        let stream =
            TcpStream::connect(target.to).with_context(|| format!("cannot connect to {}", target.to))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { stream, buffer: vec![0; 64 * 1024] })
    }

    /// One request and its whole answer; nothing may follow it.
    fn exchange(&mut self, request: &str, bytes: usize) -> Result<()> {
        self.stream.write_all(request.as_bytes())?;
        let mut filled = 0;
        let head = loop {
            filled += self.read(filled)?;
            if let Some(head) = head_length(self.buffer.get(..filled).unwrap_or_default()) {
                break head;
            }
        };
        let told = status_and_length(self.buffer.get(..head).unwrap_or_default());
        ensure!(told == Some((200, bytes)), "an answer with a wrong head");
        let mut body = filled - head;
        while body < bytes {
            body += self.read(0)?;
        }
        ensure!(body == bytes, "more than the answer");
        Ok(())
    }

    fn read(&mut self, at: usize) -> Result<usize> {
        let read = self.stream.read(self.buffer.get_mut(at..).unwrap_or_default())?;
        ensure!(read > 0, "closed in the middle of an answer");
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stall_counts_for_all_that_waited() {
        let gap = Duration::from_millis(10);
        let start = Instant::now();
        let mut number = 0;
        let paced = one_client(start, gap, start + gap * 10, || {
            number += 1;
            if number == 2 {
                std::thread::sleep(gap * 5);
            }
            Ok(())
        });
        // The second took 5 gaps, and those due meanwhile waited 4, 3, 2 and 1.
        assert!(paced.outcome.total() >= gap * 15, "{:?}", paced.outcome.total());
        assert!(paced.late.len() < 10, "those that waited were not late by the client's doing");
    }
}
