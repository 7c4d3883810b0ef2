//! How many files and connections the process may have open.

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the limit to what the system allows this process at most, as Go's runtime does; gives it back. Blocks of a
/// bucket and connections of senders soon are more than the usual 1024.
pub fn raise_file_limit() -> io::Result<u64> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum {
        setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?;
    }
    Ok(maximum.unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_limit_is_what_is_allowed() {
        let limit = super::raise_file_limit().unwrap();
        assert_eq!(super::raise_file_limit().unwrap(), limit);
    }
}
