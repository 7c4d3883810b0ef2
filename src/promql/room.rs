//! Stack for deep recursion: parser, passes and operators walk trees by recursion, and a tree may be high.

/// Trees up to this height are walked on the caller's stack.
const USUAL_HEIGHT: usize = 32;

/// Stack for the highest tree that the parser lets through, with debug builds' large frames.
const TALL_STACK: usize = 64 << 20;

/// Does `work` on a thread with room for a tree of `height`, if that is unusual; `refuse` makes the error where
/// there is no such thread to be had.
pub(crate) fn with_room<T: Send, E: Send>(
    height: usize,
    refuse: impl FnOnce(String) -> E,
    work: impl FnOnce() -> Result<T, E> + Send,
) -> Result<T, E> {
    if height <= USUAL_HEIGHT {
        return work();
    }
    std::thread::scope(|scope| {
        let spawned = std::thread::Builder::new()
            .name("promql-tall".to_owned())
            .stack_size(TALL_STACK)
            .spawn_scoped(scope, work);
        match spawned {
            Ok(thread) => thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
            Err(e) => Err(refuse(format!("no thread for a query this deeply nested: {e}"))),
        }
    })
}
