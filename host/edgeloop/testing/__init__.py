"""Contract suites and fakes, shipped so that a third party can prove an adapter. pytest is needed for the suites."""
