// Sends one of each call through RudderStack's SDK: node rudderstack.mjs HOST WRITE_KEY
import RudderAnalytics from '@rudderstack/rudder-sdk-node'

const [host, writeKey] = process.argv.slice(2)
let failed = 0
const analytics = new RudderAnalytics(writeKey, {
  dataPlaneUrl: host,
  flushAt: 100,
  errorHandler: (error) => {
    console.error(error.message)
    failed = 1
  },
})
analytics.track({ userId: 'guest', event: 'Looked' })
analytics.identify({ userId: 'u1', traits: { email: 'ada@example.com', plan: 'pro' } })
analytics.alias({ previousId: 'guest', userId: 'u1' })
analytics.track({ userId: 'u1', event: 'Bought', properties: { price: 5.25 } })
analytics.page({ userId: 'u1', name: 'Home', properties: { url: 'https://shop.example.com/home' } })
analytics.screen({ userId: 'u1', name: 'Cart' })
analytics.group({ userId: 'u1', groupId: 'acme', traits: { name: 'Acme' } })
await analytics.flush()
process.exit(failed)
