//! What reaches a profile, an event or a company.
