//! The Kafka source: what a consumer group may rely on. Against a mock cluster of librdkafka's, and
//! against a real broker where `USERCOM_TEST_KAFKA=host:port` names one (tests that need to break
//! the brokers are then left out).

mod claims;
mod cluster;
mod faults;
mod group;
mod letters;
mod settling;
mod workers;
