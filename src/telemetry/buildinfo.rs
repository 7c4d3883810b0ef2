//! Which build this is.

/// What `--version`, `/api/v1/status/buildinfo` and the build metrics show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Build {
    pub version: &'static str,
    /// Commit, where the build was told it by `TRIBUTARY_REVISION`; else `unknown`.
    pub revision: &'static str,
    pub branch: &'static str,
    pub user: &'static str,
    pub date: &'static str,
    /// The compiler, as `rustc 1.90.0 (...)`.
    pub rustc: &'static str,
}

/// This build.
pub const fn build() -> Build {
    Build {
        version: env!("CARGO_PKG_VERSION"),
        revision: or_unknown(option_env!("TRIBUTARY_REVISION")),
        branch: or_unknown(option_env!("TRIBUTARY_BRANCH")),
        user: or_unknown(option_env!("TRIBUTARY_BUILD_USER")),
        date: or_unknown(option_env!("TRIBUTARY_BUILD_DATE")),
        rustc: env!("TRIBUTARY_RUSTC"),
    }
}

const fn or_unknown(given: Option<&'static str>) -> &'static str {
    match given {
        Some(text) if !text.is_empty() => text,
        _ => "unknown",
    }
}
