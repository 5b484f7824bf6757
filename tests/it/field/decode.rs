//! Lines of real files and streams, decoded.
