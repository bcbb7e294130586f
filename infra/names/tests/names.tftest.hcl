variables {
  workspace     = "default"
  bucket_suffix = "acme-7"
}

run "the_default_workspace_has_the_plain_names" {
  command = plan

  assert {
    condition     = output.assignments_table == "DeliveryAssignments" && output.packages_table == "DeliveryPackages"
    error_message = "Tables: ${output.assignments_table}, ${output.packages_table}"
  }

  assert {
    condition     = output.log_bucket == "odyssey-log-acme-7" && output.server_policy == "odyssey-server"
    error_message = "Others: ${output.log_bucket}, ${output.server_policy}"
  }

  assert {
    condition     = output.events_topic == "events-topic" && output.assignments_topic == "assignments-topic"
    error_message = "Topics: ${output.events_topic}, ${output.assignments_topic}"
  }

  assert {
    condition = alltrue([
      output.events_queue == "events-queue",
      output.assignments_queue == "assignments-queue",
      output.dead_letter_queue == "dead-letter-queue",
    ])
    error_message = "Queues: ${output.events_queue}, ${output.assignments_queue}, ${output.dead_letter_queue}"
  }

  assert {
    condition = alltrue([
      output.dispatcher_policy == "odyssey-dispatcher",
      output.directory_policy == "odyssey-directory",
      output.redrive_policy == "odyssey-redrive",
    ])
    error_message = "Policies: ${output.dispatcher_policy}, ${output.directory_policy}, ${output.redrive_policy}"
  }

  assert {
    condition     = !output.protected
    error_message = "What is tried out can be thrown away."
  }
}

run "dev_is_prefixed" {
  command = plan

  variables {
    workspace = "dev"
  }

  assert {
    condition     = output.assignments_table == "dev-DeliveryAssignments" && output.packages_table == "dev-DeliveryPackages"
    error_message = "Tables: ${output.assignments_table}, ${output.packages_table}"
  }

  assert {
    condition     = output.log_bucket == "dev-odyssey-log-acme-7" && output.server_policy == "dev-odyssey-server"
    error_message = "Others: ${output.log_bucket}, ${output.server_policy}"
  }

  assert {
    condition     = output.events_topic == "dev-events-topic" && output.assignments_topic == "dev-assignments-topic"
    error_message = "Topics: ${output.events_topic}, ${output.assignments_topic}"
  }

  assert {
    condition = alltrue([
      output.events_queue == "dev-events-queue",
      output.assignments_queue == "dev-assignments-queue",
      output.dead_letter_queue == "dev-dead-letter-queue",
    ])
    error_message = "Queues: ${output.events_queue}, ${output.assignments_queue}, ${output.dead_letter_queue}"
  }

  assert {
    condition = alltrue([
      output.dispatcher_policy == "dev-odyssey-dispatcher",
      output.directory_policy == "dev-odyssey-directory",
      output.redrive_policy == "dev-odyssey-redrive",
    ])
    error_message = "Policies: ${output.dispatcher_policy}, ${output.directory_policy}, ${output.redrive_policy}"
  }

  assert {
    condition     = !output.protected
    error_message = "What is developed with can be thrown away."
  }
}

run "test_is_prefixed" {
  command = plan

  variables {
    workspace = "test"
  }

  assert {
    condition     = output.assignments_table == "test-DeliveryAssignments" && !output.protected
    error_message = "Table: ${output.assignments_table}, protected: ${output.protected}"
  }

  assert {
    condition     = output.events_topic == "test-events-topic" && output.dead_letter_queue == "test-dead-letter-queue"
    error_message = "Topic: ${output.events_topic}, queue: ${output.dead_letter_queue}"
  }
}

run "prod_is_prefixed_and_protected" {
  command = plan

  variables {
    workspace = "prod"
  }

  assert {
    condition     = output.assignments_table == "prod-DeliveryAssignments" && output.protected
    error_message = "Table: ${output.assignments_table}, protected: ${output.protected}"
  }

  assert {
    condition     = output.events_topic == "prod-events-topic" && output.dead_letter_queue == "prod-dead-letter-queue"
    error_message = "Topic: ${output.events_topic}, queue: ${output.dead_letter_queue}"
  }
}

run "a_workspace_by_mistake_is_refused" {
  command = plan

  variables {
    workspace = "production"
  }

  expect_failures = [var.workspace]
}

run "a_bucket_that_s3_would_refuse_is_refused_before" {
  command = plan

  variables {
    bucket_suffix = "Acme_7"
  }

  expect_failures = [var.bucket_suffix]
}

run "a_bucket_whose_name_is_too_long_is_refused_before" {
  command = plan

  variables {
    bucket_suffix = "a-suffix-of-forty-one-characters-is-too-l"
  }

  expect_failures = [var.bucket_suffix]
}

run "the_longest_bucket_name_is_within_the_bound" {
  command = plan

  variables {
    workspace     = "prod"
    bucket_suffix = "a-suffix-of-forty-characters-is-the-last"
  }

  assert {
    condition     = length(var.bucket_suffix) == 40 && length(output.log_bucket) <= 63
    error_message = "${output.log_bucket} has ${length(output.log_bucket)} characters."
  }
}

run "tags_tell_the_workspace_whatever_is_asked_for" {
  command = plan

  variables {
    workspace = "test"
    tags      = { Owner = "ada", Workspace = "prod" }
  }

  assert {
    condition     = output.tags == tomap({ Owner = "ada", Project = "odyssey", Workspace = "test" })
    error_message = jsonencode(output.tags)
  }
}
