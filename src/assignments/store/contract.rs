//! The contract of a store: each adapter runs `suite!` in its tests.
