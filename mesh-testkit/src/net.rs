//! Loopback addresses that no other test has, and waiting for what is to happen.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU8, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// How long [`eventually`] waits unless told otherwise: generous, for test machines are busy.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// A /24 network of 127/8 that this process has claimed by holding a socket in it.
struct Block {
    network: [u8; 3],
    next: AtomicU8,
    _claim: UdpSocket,
}

static BLOCK: Mutex<Option<Block>> = Mutex::new(None);

/// A loopback address that nothing else uses, in this process or in any other that asks this function.
///
/// # Panics
/// When 127/8 is not the loopback network, or thousands of test processes run.
#[must_use]
pub fn fresh_ip() -> IpAddr {
    let mut slot = BLOCK.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        if let Some(block) = &*slot {
            let host = block.next.fetch_add(1, Ordering::Relaxed);
            if host < 254 {
                let [a, b, c] = block.network;
                return Ipv4Addr::new(a, b, c, host).into();
            }
            // The claim of a used-up block stays for as long as the process lives.
            std::mem::forget(slot.take());
        }
        *slot = Some(claim());
    }
}

/// As [`fresh_ip`], with a port.
#[must_use]
pub fn fresh_addr(port: u16) -> SocketAddr {
    (fresh_ip(), port).into()
}

fn claim() -> Block {
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.subsec_nanos());
    let seed = std::process::id().wrapping_mul(0x9e37_79b9) ^ clock;
    for attempt in 0..2000_u32 {
        let bits = seed.wrapping_add(attempt.wrapping_mul(0x85eb_ca6b));
        // 127.0 and 127.1 are left to services and demos of the machine.
        let network = [127, 64 + (bits >> 8) as u8 % 190, (bits >> 16) as u8];
        let [a, b, c] = network;
        if let Ok(claim) = UdpSocket::bind((Ipv4Addr::new(a, b, c, 254), 65_535)) {
            return Block { network, next: AtomicU8::new(1), _claim: claim };
        }
    }
    panic!("no free network in 127/8: is it the loopback network of this machine?");
}

/// Asks again and again until there is an answer, for at most `timeout`.
///
/// # Panics
/// When there is no answer in time; `what` says what was waited for.
#[track_caller]
pub fn eventually<T, F, Fut>(timeout: Duration, what: &str, mut ask: F) -> impl Future<Output = T>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Option<T>>,
{
    let caller = std::panic::Location::caller();
    async move {
        let begin = Instant::now();
        let mut pause = Duration::from_millis(2);
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            assert!(begin.elapsed() < timeout, "{caller}: not within {timeout:?}: {what}");
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(50));
        }
    }
}

/// As [`eventually`], for a condition, with [`PATIENCE`].
///
/// # Panics
/// When the condition does not come true in time.
#[track_caller]
pub fn until(what: &str, mut holds: impl FnMut() -> bool) -> impl Future<Output = ()> {
    eventually(PATIENCE, what, move || {
        let answer = holds().then_some(());
        async move { answer }
    })
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, net::TcpListener};

    use super::*;

    #[test]
    fn addresses_are_distinct_and_can_be_bound() {
        let addresses: HashSet<IpAddr> = (0..600).map(|_| fresh_ip()).collect();
        assert_eq!(addresses.len(), 600);
        assert!(addresses.iter().all(IpAddr::is_loopback));
        let address = fresh_addr(15_001);
        TcpListener::bind(address).expect("free");
    }

    #[tokio::test]
    async fn waits_and_gives_up() {
        let mut left = 3;
        until("counted down", || {
            left -= 1;
            left == 0
        })
        .await;
        let never = tokio::spawn(eventually(Duration::from_millis(20), "never", || async { None::<()> }));
        let panic = never.await.expect_err("gives up").into_panic();
        let text = panic.downcast_ref::<String>().expect("a text");
        assert!(text.contains("never") && text.contains("net.rs"), "{text}");
    }
}
