//! hashring
