-- Successes whose results may be used again are found by the key that they note. Of other XComs the index has nothing.
CREATE INDEX xcoms_cached ON xcoms (key) WHERE key >= 'cache:' AND key < 'cache;';
