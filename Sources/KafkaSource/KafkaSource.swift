// KafkaSource: see the files beside this one.
