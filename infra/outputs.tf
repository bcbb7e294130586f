output "assignments_table" {
  description = "For assignments.table."
  value       = aws_dynamodb_table.assignments.name
}

output "packages_table" {
  description = "For assignments.packages_table."
  value       = aws_dynamodb_table.packages.name
}

output "log_bucket" {
  description = "For oplog.bucket."
  value       = aws_s3_bucket.log.bucket
}

output "events_topic_arn" {
  description = "For couriers.events_topic_arn."
  value       = aws_sns_topic.couriers["events"].arn
}

output "events_queue_url" {
  description = "For couriers.events_queue_url."
  value       = aws_sqs_queue.couriers["events"].url
}

output "assignments_topic_arn" {
  description = "For couriers.assignments_topic_arn."
  value       = aws_sns_topic.couriers["assignments"].arn
}

output "assignments_queue_url" {
  description = "For couriers.assignments_queue_url."
  value       = aws_sqs_queue.couriers["assignments"].url
}

output "dead_letter_queue_url" {
  description = "For couriers.dead_letter_queue_url."
  value       = aws_sqs_queue.dead_letters.url
}

output "server_policy_arn" {
  description = "To be attached to the role that the server runs as."
  value       = aws_iam_policy.server.arn
}

output "dispatcher_policy_arn" {
  description = "To be attached to the role of the couriers' dispatcher."
  value       = aws_iam_policy.dispatcher.arn
}

output "directory_policy_arn" {
  description = "To be attached to the role of the couriers' directory."
  value       = aws_iam_policy.directory.arn
}

output "redrive_policy_arn" {
  description = "To be attached to the role of whoever runs odyssey couriers redrive."
  value       = aws_iam_policy.redrive.arn
}

output "environment" {
  description = "The same for the server's environment: terraform output -raw environment > odyssey.env"
  value       = <<-END
    ODYSSEY_ASSIGNMENTS__STORE=dynamodb
    ODYSSEY_ASSIGNMENTS__TABLE=${aws_dynamodb_table.assignments.name}
    ODYSSEY_ASSIGNMENTS__PACKAGES_TABLE=${aws_dynamodb_table.packages.name}
    ODYSSEY_OPLOG__SINK=s3
    ODYSSEY_OPLOG__BUCKET=${aws_s3_bucket.log.bucket}
    ODYSSEY_COURIERS__EVENTS=sqs
    ODYSSEY_COURIERS__EVENTS_TOPIC_ARN=${aws_sns_topic.couriers["events"].arn}
    ODYSSEY_COURIERS__EVENTS_QUEUE_URL=${aws_sqs_queue.couriers["events"].url}
    ODYSSEY_COURIERS__ASSIGNMENTS_TOPIC_ARN=${aws_sns_topic.couriers["assignments"].arn}
    ODYSSEY_COURIERS__ASSIGNMENTS_QUEUE_URL=${aws_sqs_queue.couriers["assignments"].url}
    ODYSSEY_COURIERS__DEAD_LETTER_QUEUE_URL=${aws_sqs_queue.dead_letters.url}
    AWS_REGION=${var.region}
  END
}
