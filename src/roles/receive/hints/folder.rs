//! Names of the folders in which peers' hints lie.

use super::mend::DAMAGED;

/// Name of a peer's folder: its address, with every other character as its code.
pub fn name_of(peer: &str) -> String {
    let mut out = String::with_capacity(peer.len() + 8);
    for byte in peer.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' => out.push(char::from(byte)),
            _ => out.push_str(&format!("_{byte:02x}")),
        }
    }
    out
}

pub fn peer_of(name: &str) -> Option<String> {
    let mut out = Vec::new();
    let mut rest = name.as_bytes();
    while let Some((first, next)) = rest.split_first() {
        if *first != b'_' {
            out.push(*first);
            rest = next;
            continue;
        }
        let (code, next) = next.split_at_checked(2)?;
        out.push(u8::from_str_radix(std::str::from_utf8(code).ok()?, 16).ok()?);
        rest = next;
    }
    let peer = String::from_utf8(out).ok()?;
    // Folders that are set aside have names that no peer has.
    (name_of(&peer) == name && !name.contains(DAMAGED)).then_some(peer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_named_after_peers_and_never_leave_their_place() {
        for peer in ["10.0.0.1:10901", "[::1]:80", "../../etc:1", "a_b:1", "ü:1"] {
            let name = name_of(peer);
            assert!(!name.contains('/') && name != ".." && name != ".", "{name}");
            assert_eq!(peer_of(&name).as_deref(), Some(peer));
        }
        assert_eq!(name_of("a:1"), "a_3a1");
        assert_eq!(peer_of("a_3a1.damaged-5"), None);
        assert_eq!(peer_of("a_zz"), None);
    }
}
